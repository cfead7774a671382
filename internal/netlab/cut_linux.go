package netlab

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Cut loses all that the cable carries, both ways, until Mend. Unlike with Unplug, nobody is told: both ends keep
// their carrier, addresses and routes. A capture still shows what reaches the far end, since it looks first.
func (i *Iface) Cut() {
	i.host.lab.t.Helper()
	if i.cut != nil {
		return
	}
	i.cut = []func(){i.host.deafen(i.name)}
	if i.far != nil {
		i.cut = append(i.cut, i.far.host.deafen(i.far.name))
	} else {
		i.cut = append(i.cut, i.sw.host.deafen(i.port.Attrs().Name))
	}
}

// Mend undoes Cut. It does nothing to a cable that is not cut.
func (i *Iface) Mend() {
	i.host.lab.t.Helper()
	for _, undo := range i.cut {
		undo()
	}
	i.cut = nil
}

// deafen drops every frame that an interface receives, until undone.
func (h *Host) deafen(iface string) (undo func()) {
	h.lab.t.Helper()
	c, table := h.newTable(nftables.TableFamilyNetdev)
	ch := c.AddChain(&nftables.Chain{
		Table: table, Name: "cut", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: iface,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
	h.must("cut "+iface, c.Flush())
	return func() {
		h.lab.t.Helper()
		c := h.nftables()
		c.DelTable(table)
		h.must("mend "+iface, c.Flush())
	}
}

// Part loses all packets between two public addresses at the core, both ways, until heal is called: each still
// reaches everybody else. heal may be called twice.
func (w *Internet) Part(a, b netip.Addr) (heal func()) {
	w.lab.t.Helper()
	there := w.core.DropRule(Match{Hooks: Forward, Src: a, Dst: b})
	back := w.core.DropRule(Match{Hooks: Forward, Src: b, Dst: a})
	return func() {
		w.lab.t.Helper()
		there.Remove()
		back.Remove()
	}
}

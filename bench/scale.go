package main

import (
	"fmt"
	"io"
	"time"
)

// scaleName is the command that measures a node in a large network.
const scaleName = "scale"

// scalePlan is what a run of it does, and for how long. Immutable.
type scalePlan struct {
	members, active int
	settle          time.Duration // after the start, and after each pass
	idle            time.Duration // in which the CPU of the idle node is counted
	within          time.Duration // that all active members begin in
	later           time.Duration // until memory is looked at once more; 0: it is not
	lookup          time.Duration // of a loop of lookups
}

// fullScale is the default, and what the bars are about.
func fullScale() scalePlan {
	return scalePlan{
		members: 10_000, active: 1000,
		settle: 30 * time.Second, idle: 20 * time.Second, within: time.Minute, lookup: lookupTime,
	}
}

// scaleLater is for -long: every session is over by then.
const scaleLater = 4 * time.Minute

// estimate is how long a run takes.
func (p scalePlan) estimate() time.Duration {
	const around = 20 * time.Second // build, make the network, start, burst
	return around + time.Duration(p.members)*time.Millisecond + 3*p.settle + p.idle + p.within + p.later
}

// scaleMetrics are the figures of a node in a large network, in the order of the table.
func scaleMetrics() []metric {
	all := []metric{
		{Name: "scale_ready", Title: "Ready after", Unit: "s", Digits: 2},
		{Name: "scale_ready_cpu", Title: "CPU until ready", Unit: "s", Digits: 2},
		{Name: "scale_rss_idle", Title: "Memory, all known and none active", Unit: "MB", Digits: 1, Floor: 2},
		{Name: "scale_cpu_idle", Title: "CPU, all known and none active", Unit: "ms/s", Digits: 1},
		{Name: "scale_failed", Title: "Active members without a handshake or an echo", Unit: "members"},
		{Name: "scale_spread_cpu", Title: "CPU while the active members came", Unit: "ms/s", Digits: 1},
		{Name: "scale_shake_p50", Title: "Handshake while they came: median", Unit: "ms", Digits: 2},
		{Name: "scale_shake_p99", Title: "Handshake while they came: 99th percentile", Unit: "ms", Digits: 2},
		{Name: "scale_rss_active", Title: "Memory, after they came", Unit: "MB", Digits: 1, Floor: 2},
		{Name: "scale_burst_rate", Title: "Handshakes as fast as it goes", Unit: "handshakes/s"},
		{Name: "scale_burst_cpu", Title: "CPU of one of these, its echo included", Unit: "µs"},
		{Name: "scale_rss_burst", Title: "Memory, after these", Unit: "MB", Digits: 1, Floor: 2},
		{Name: "scale_rss_later", Title: "Memory, when all sessions are over", Unit: "MB", Digits: 1, Floor: 2},
		{Name: "scale_route4", Title: "Lookup of a member by IPv4 address, of 3 addresses each", Unit: "ns", Digits: 1},
		{Name: "scale_route6", Title: "Lookup of a member by IPv6 address, of the same", Unit: "ns", Digits: 1},
		{Name: "scale_session", Title: "Lookup of a session, of 2 000", Unit: "ns", Digits: 1},
	}
	for i := range all {
		all[i].Test, all[i].Better = scaleName, lower
		if all[i].Name == "scale_burst_rate" {
			all[i].Better = higher
		}
	}
	return all
}

// Passes of a swarm.
const (
	passSpread = "spread"
	passBurst  = "burst"
)

// passOutcome is what a pass came to.
type passOutcome struct {
	Pass    string  `json:"pass"`
	Members int     `json:"members"`
	Shaken  int     `json:"shaken"`
	Echoed  int     `json:"echoed"`
	Seconds float64 `json:"seconds"`  // from the first initiation to the last handshake
	Daemons float64 `json:"daemon_s"` // CPU of the node, within the pass
	Shake50 float64 `json:"shake50_ms"`
	Shake99 float64 `json:"shake99_ms"`
	Echo50  float64 `json:"echo50_ms"`
	Echo99  float64 `json:"echo99_ms"`
}

// passFigures are the metrics of a pass, added to figures. A member counts as failed once.
func passFigures(o passOutcome, figures map[string]float64) {
	figures["scale_failed"] += float64(o.Members - o.Echoed)
	if o.Pass == passSpread {
		figures["scale_shake_p50"], figures["scale_shake_p99"] = o.Shake50, o.Shake99
		if o.Seconds > 0 {
			figures["scale_spread_cpu"] = o.Daemons * 1e3 / o.Seconds
		}
		return
	}
	if o.Seconds > 0 && o.Echoed > 0 {
		figures["scale_burst_rate"] = float64(o.Shaken) / o.Seconds
		figures["scale_burst_cpu"] = o.Daemons * 1e6 / float64(o.Echoed)
	}
}

// scaleReport is a whole run in a large network.
type scaleReport struct {
	Started  time.Time          `json:"started"`
	Took     float64            `json:"took_s"`
	Machine  machine            `json:"machine"`
	Members  int                `json:"members"` // the node under test included
	Active   int                `json:"active"`
	Made     float64            `json:"made_s"`  // how long it took to make the network up
	Noisy    bool               `json:"noisy"`   // the machine was busy with something else before it
	Figures  map[string]float64 `json:"figures"` // by metric
	Passes   []passOutcome      `json:"passes"`
	Verdicts []verdict          `json:"verdicts"` // of the default sizes only
}

// judge holds the figures against the bars.
func (r *scaleReport) judge() {
	if full := fullScale(); r.Members != full.members || r.Active != full.active {
		return
	}
	t := newTable(mtuDefault)
	for name, value := range r.Figures {
		t.add(nameMeshnet, name, reading{Round: 1, Value: value, Noisy: r.Noisy})
	}
	r.Verdicts = judge(t)
}

// print writes everything as Markdown.
func (r *scaleReport) print(w io.Writer) {
	took := time.Duration(r.Took * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(w, "# meshnet with %s members known, %s of them active\n\n%s, %v; %s, %d CPUs, Linux %s, %s\n",
		grouped(float64(r.Members), 0), grouped(float64(r.Active), 0),
		r.Started.Format(time.DateTime), took, r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel, r.Machine.Go)
	if r.Noisy {
		fmt.Fprintf(w, "\nThe machine was busy with something else.\n")
	}
	fmt.Fprintf(w, "\n| | unit | |\n|---|---|---:|\n")
	for _, m := range scaleMetrics() {
		if value, ok := r.Figures[m.Name]; ok {
			fmt.Fprintf(w, "| %s | %s | %s |\n", m.Title, m.Unit, grouped(value, m.Digits))
		}
	}
	printBars(w, r.Verdicts)
}

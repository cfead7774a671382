package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/soap"
)

const (
	maxXML   = 256 << 10 // of a description or an answer
	httpWait = 3 * time.Second
)

// errDescription is a device description that says nothing, or nothing that is believed.
var errDescription = errors.New("malformed device description")

// The services that make port mappings, the preferred first.
var wanServices = []string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

// Error codes of the services (WANIPConnection:2 §2.5).
const (
	upnpConflict      = 718 // another host has the outside port
	upnpSamePorts     = 724 // the inside and the outside port must be equal
	upnpOnlyPermanent = 725 // leases do not end
)

// igd is one service of a router that makes port mappings.
type igd struct {
	service string
	control url.URL
}

// parseDescription finds the services in a device description (UPnP Device Architecture 1.1 §2.3), the preferred first:
// those that are controlled on the gateway itself. base is where the description was. It fails with errDescription.
func parseDescription(text io.Reader, base *url.URL, gw netip.Addr) ([]*igd, error) {
	var root goupnp.RootDevice
	d := xml.NewDecoder(io.LimitReader(text, maxXML))
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // what matters is ASCII
	if d.Decode(&root) != nil {
		return nil, errDescription
	}
	if u, err := url.Parse(root.URLBaseStr); err == nil && root.URLBaseStr != "" && onGateway(u, gw) {
		base = u
	}
	root.SetURLBase(base)
	var all []*igd
	root.Device.VisitServices(func(s *goupnp.Service) {
		if slices.Contains(wanServices, s.ServiceType) && s.ControlURL.Ok && onGateway(&s.ControlURL.URL, gw) {
			all = append(all, &igd{s.ServiceType, s.ControlURL.URL})
		}
	})
	if len(all) == 0 {
		return nil, errDescription
	}
	slices.SortStableFunc(all, func(a, b *igd) int {
		return slices.Index(wanServices, a.service) - slices.Index(wanServices, b.service)
	})
	return all[:min(len(all), maxLocations)], nil
}

// client speaks HTTP with the gateway only: to no other address, without proxies or redirections, and reads no more than
// maxXML of any answer.
func (m *Mapper) client(gw Gateway) *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if to, err := netip.ParseAddrPort(addr); err != nil || to.Addr() != gw.Addr {
				return nil, errDescription
			}
			return m.cfg.Dial(ctx, network, addr)
		},
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
	}
	return &http.Client{
		Transport: limited{t}, Timeout: httpWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// limited cuts the bodies of answers.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxXML), resp.Body}
	}
	return resp, err
}

// findIGDs searches for the gateway's services. None: it speaks no UPnP.
func (m *Mapper) findIGDs(ctx context.Context, gw Gateway) []*igd {
	var all []*igd
	for _, u := range m.locations(ctx, gw) {
		found, err := m.describe(ctx, gw, u)
		if err != nil {
			m.cfg.Logger.Debug("upnp description", "endpoint", u.Host, "err", err)
		}
		all = append(all, found...)
	}
	return all
}

func (m *Mapper) describe(ctx context.Context, gw Gateway, at *url.URL) ([]*igd, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := m.client(gw).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errDescription
	}
	return parseDescription(resp.Body, at, gw.Addr)
}

// call performs an action of a service.
func (m *Mapper) call(ctx context.Context, gw Gateway, d *igd, action string, in, out any) error {
	c := soap.NewSOAPClient(d.control)
	c.HTTPClient = *m.client(gw)
	if err := c.PerformActionCtx(ctx, d.service, action, in, out); err != nil {
		if fault, ok := errors.AsType[*soap.SOAPFaultError](err); ok {
			return upnpError(fault.Detail.UPnPError.Errorcode)
		}
		return fmt.Errorf("upnp %s: %.200w", action, err)
	}
	return nil
}

// upnpError is a service's refusal.
type upnpError int

func (e upnpError) Error() string { return fmt.Sprintf("upnp error %d", int(e)) }

// addPortMapping and deletePortMapping are the arguments of the actions of those names, in their order.
type addPortMapping struct {
	NewRemoteHost, NewExternalPort, NewProtocol, NewInternalPort, NewInternalClient, NewEnabled,
	NewPortMappingDescription, NewLeaseDuration string
}

type deletePortMapping struct {
	NewRemoteHost, NewExternalPort, NewProtocol string
}

// mapUPnP makes a mapping, or renews it. want is the outside port that is liked best.
func (m *Mapper) mapUPnP(ctx context.Context, gw Gateway, d *igd, port, want uint16) (*lease, error) {
	var out struct{ NewExternalIPAddress string }
	if err := m.call(ctx, gw, d, "GetExternalIPAddress", nil, &out); err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(out.NewExternalIPAddress)
	if err != nil {
		return nil, errNoAddress
	}
	// Checked first: no mapping is made that nobody could use.
	if _, err := newLease(time.Now(), UPnP, gw, port, netip.AddrPortFrom(ip, want), lifetime); err != nil {
		return nil, err
	}
	life, tries := lifetime, 4
	for ; tries > 0; tries-- {
		err = m.call(ctx, gw, d, "AddPortMapping", &addPortMapping{
			NewExternalPort: strconv.Itoa(int(want)), NewProtocol: "UDP", NewInternalPort: strconv.Itoa(int(port)),
			NewInternalClient: gw.Self.String(), NewEnabled: "1", NewPortMappingDescription: "meshnet",
			NewLeaseDuration: strconv.Itoa(int(life / time.Second)),
		}, nil)
		switch err {
		case upnpError(upnpOnlyPermanent):
			life = 0
			continue
		case upnpError(upnpSamePorts):
			if want == port {
				return nil, err
			}
			want = port
			continue
		case upnpError(upnpConflict):
			want = 1024 + rand.N[uint16](1<<16-1-1024)
			continue
		}
		break
	}
	if err != nil {
		return nil, err
	}
	l, err := newLease(time.Now(), UPnP, gw, port, netip.AddrPortFrom(ip, want), lifetime)
	if l != nil {
		l.igd = d
	}
	return l, err
}

func (m *Mapper) unmapUPnP(ctx context.Context, l *lease) error {
	return m.call(ctx, l.gw, l.igd, "DeletePortMapping", &deletePortMapping{
		NewExternalPort: strconv.Itoa(int(l.external.Port())), NewProtocol: "UDP",
	}, nil)
}

package meshnet

import (
	"net/netip"
	"time"
)

// Status is a snapshot of a node, and the JSON that `meshnet status --json` prints. Every field is always present;
// what is unknown is null.
type Status struct {
	Version string        `json:"version"`
	State   string        `json:"state"` // starting, running, stopping
	Network NetworkStatus `json:"network"`
	Self    SelfStatus    `json:"self"`
	Peers   []PeerStatus  `json:"peers"`
	Health  []Health      `json:"health"`
}

// NetworkStatus describes the network.
type NetworkStatus struct {
	ID       *string `json:"id"`
	Name     *string `json:"name"`
	Suffix   *string `json:"suffix"`
	Prefix4  *string `json:"prefix4"`
	Prefix6  *string `json:"prefix6"`
	Members  int     `json:"members"` // this node among them
	RelayKey *string `json:"relay_key"`
}

// SelfStatus describes the node itself.
type SelfStatus struct {
	ID        string           `json:"id"`
	Name      *string          `json:"name"`
	FQDN      *string          `json:"fqdn"`
	IPs       []netip.Addr     `json:"ips"`
	Mode      string           `json:"mode"`      // tun, userspace
	Interface *string          `json:"interface"` // of the TUN
	Port      uint16           `json:"port"`
	Listen    ListenStatus     `json:"listen"`
	Endpoints []EndpointStatus `json:"endpoints"`
	Homes     []string         `json:"homes"`
	RelayURL  *string          `json:"relay_url"` // of the relay server in this node
	Roles     []string         `json:"roles"`
	Started   time.Time        `json:"started"`
}

// ListenStatus tells what the node listens on.
type ListenStatus struct {
	UDP       *string `json:"udp"`
	SOCKS5    *string `json:"socks5"`
	HTTPProxy *string `json:"http_proxy"`
	Relay     *string `json:"relay"`
	DNS       *string `json:"dns"`
	Metrics   *string `json:"metrics"`
	Web       *string `json:"web"`
}

// EndpointStatus is an own underlay address.
type EndpointStatus struct {
	Addr   netip.AddrPort `json:"addr"`
	Source string         `json:"source"` // local, stun, portmap, peer, static
}

// PeerState says what is known of a peer.
type PeerState string

// The states of a peer.
const (
	PeerUnknown     PeerState = "unknown"     // nothing is known of how to reach it
	PeerIdle        PeerState = "idle"        // a path is known and nothing is sent
	PeerConnecting  PeerState = "connecting"  // an initiation is outstanding
	PeerConnected   PeerState = "connected"   // a packet authenticated in the last 180 s
	PeerUnreachable PeerState = "unreachable" // unanswered for 15 s
)

// PeerStatus describes a peer.
type PeerStatus struct {
	ID            string           `json:"id"`
	Name          *string          `json:"name"`
	FQDN          *string          `json:"fqdn"`
	IPs           []netip.Addr     `json:"ips"`
	Roles         []string         `json:"roles"`
	Tags          []string         `json:"tags"`
	Admitted      time.Time        `json:"admitted"`
	State         PeerState        `json:"state"`
	Path          PathStatus       `json:"path"`
	RTT           RTTStatus        `json:"rtt"`
	PQ            string           `json:"pq"` // none, floor, pair
	RxBytes       uint64           `json:"rx_bytes"`
	TxBytes       uint64           `json:"tx_bytes"`
	LastHandshake *time.Time       `json:"last_handshake"`
	LastSeen      *time.Time       `json:"last_seen"`
	Endpoints     []EndpointStatus `json:"endpoints"`
	Routes        []string         `json:"routes"`
	Services      []string         `json:"services"`
}

// PathStatus is the path that the next packet takes.
type PathStatus struct {
	Kind   string     `json:"kind"` // direct, member, relay, none
	Addr   *string    `json:"addr"`
	Via    *string    `json:"via"`
	RTTMs  *float64   `json:"rtt_ms"`
	Since  *time.Time `json:"since"`
	Reason *string    `json:"reason"`
}

// RTTStatus are statistics over the last pongs, in milliseconds.
type RTTStatus struct {
	LastMs   *float64 `json:"last_ms"`
	AvgMs    *float64 `json:"avg_ms"`
	StddevMs *float64 `json:"stddev_ms"`
	P95Ms    *float64 `json:"p95_ms"`
	Loss     *float64 `json:"loss"` // 0 to 1
}

// Health is something that stands in the way.
type Health struct {
	Code     string `json:"code"`
	Severity string `json:"severity"` // info, warning, error
	Text     string `json:"text"`
	Hint     string `json:"hint"`
}

// MemberStatus is a member as the ledger knows it, and the JSON of `meshnet members --json`.
type MemberStatus struct {
	ID       string       `json:"id"`
	Name     *string      `json:"name"`
	IPs      []netip.Addr `json:"ips"`
	Roles    []string     `json:"roles"`
	Tags     []string     `json:"tags"`
	Admitted time.Time    `json:"admitted"`
	Invite   *string      `json:"invite"` // the invite it came with
	By       *string      `json:"by"`     // who accepted it
	Revoked  *time.Time   `json:"revoked"`
	Self     bool         `json:"self"`
}

// InviteStatus is an invite, and the JSON of `meshnet invite list --json`.
type InviteStatus struct {
	ID      string     `json:"id"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires"`
	Uses    uint64     `json:"uses"` // 0: unlimited
	Used    uint64     `json:"used"`
	Tags    []string   `json:"tags"`
	State   string     `json:"state"` // open, expired, used, revoked
}

// InviteOptions of a new invite.
type InviteOptions struct {
	Expires time.Duration // 0: 24 h; negative: never
	Uses    uint64        // 0: unlimited
	Tags    []string
}

// Invitation is a new invite. The token is a password.
type Invitation struct {
	ID    string `json:"id"`
	Token string `json:"token"`
}

// PingResult is one echo, and the JSON line of `meshnet ping --json`.
type PingResult struct {
	Seq   int        `json:"seq"`
	OK    bool       `json:"ok"`
	RTTMs *float64   `json:"rtt_ms"`
	Path  PathStatus `json:"path"`
	Error *string    `json:"error"`
}

// WhoIs is who owns an address, and the JSON of `meshnet whois --json`.
type WhoIs struct {
	ID    string       `json:"id"`
	Name  *string      `json:"name"`
	FQDN  *string      `json:"fqdn"`
	IPs   []netip.Addr `json:"ips"`
	Roles []string     `json:"roles"`
	Tags  []string     `json:"tags"`
	Self  bool         `json:"self"`
}

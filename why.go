package meshnet

import "time"

// Why explains the path to a peer, and is the JSON that `meshnet why PEER --json` prints.
type Why struct {
	Peer   WhoIs      `json:"peer"`
	Path   PathStatus `json:"path"`
	Rule   string     `json:"rule"` // what decided, in words
	Ours   WhySide    `json:"ours"`
	Theirs WhySide    `json:"theirs"`
	Probes []WhyProbe `json:"probes"`
}

// WhySide is one end: where it may be found, and what is in its way.
type WhySide struct {
	NAT        *string          `json:"nat"` // none, easy, hard, blocked
	Candidates []EndpointStatus `json:"candidates"`
	Homes      []string         `json:"homes"` // relay URLs and member names
}

// WhyProbe is what became of one candidate path.
type WhyProbe struct {
	Path     PathStatus `json:"path"`
	Pings    uint64     `json:"pings"`
	Pongs    uint64     `json:"pongs"`
	LastPing *time.Time `json:"last_ping"`
	LastPong *time.Time `json:"last_pong"`
	Size     int        `json:"size"` // largest datagram that a pong confirmed, in bytes; 0: none
	RxBytes  uint64     `json:"rx_bytes"`
	TxBytes  uint64     `json:"tx_bytes"`
	Verdict  string     `json:"verdict"` // in use, works, too small for data, no answer, refused, …
}

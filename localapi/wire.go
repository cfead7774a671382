package localapi

import "time"

// duration is a Go duration as text.
type duration time.Duration

// MarshalText is "1m30s".
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = duration(parsed)
	return err
}

type inviteRequest struct {
	Expires duration `json:"expires"`
	Uses    uint64   `json:"uses"`
	Tags    []string `json:"tags"`
}

type inviteRevokeRequest struct {
	ID string `json:"id"`
}

type memberRevokeRequest struct {
	Peer string `json:"peer"`
}

type approveRequest struct {
	Peer  string `json:"peer"`
	What  string `json:"what"` // relay
	Allow bool   `json:"allow"`
}

type pingRequest struct {
	Peer    string   `json:"peer"`
	Seq     int      `json:"seq"`
	Size    int      `json:"size"`
	Timeout duration `json:"timeout"`
}

type errorReply struct {
	Error *Error `json:"error"`
}

// Key is the public half of the node's key.
type Key struct {
	ID     string `json:"id"`
	Public string `json:"public"` // PEM
}

// Down tells who is going down.
type Down struct {
	PID int `json:"pid"`
}

package localapi

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/meshnet/meshnet"
)

func TestDocument(t *testing.T) {
	zone := time.FixedZone("", 2*3600)
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, zone)
	s := &meshnet.Status{
		Self:  meshnet.SelfStatus{Started: when, IPs: []netip.Addr{netip.MustParseAddr("100.64.0.1")}},
		Peers: []meshnet.PeerStatus{{ID: "p", Admitted: when, LastSeen: &when}},
	}
	data, err := json.Marshal(Document(s))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Self struct {
			Started string
			IPs     []string
			Roles   *[]string
			Homes   *[]string
		}
		Peers []struct {
			Admitted string
			LastSeen string `json:"last_seen"`
			Tags     *[]string
		}
		Health *[]any
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	const utc = "2026-01-02T01:04:05Z"
	if got.Self.Started != utc || got.Peers[0].Admitted != utc || got.Peers[0].LastSeen != utc {
		t.Errorf("times are not UTC: %s", data)
	}
	if got.Self.Roles == nil || got.Self.Homes == nil || got.Peers[0].Tags == nil || got.Health == nil {
		t.Errorf("a list is null: %s", data)
	}
	if got.Self.IPs[0] != "100.64.0.1" {
		t.Errorf("addresses changed: %s", data)
	}
	if s.Health != nil || s.Peers[0].Tags != nil || s.Self.Started.Location() != zone {
		t.Error("the original was changed")
	}
	if data, _ := json.Marshal(Document(meshnet.Event{})); string(data) != `{"time":"0001-01-01T00:00:00Z","type":"","peer":null,"name":null,"data":{}}` {
		t.Errorf("event: %s", data)
	}
}

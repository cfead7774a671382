package localapi

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestMayChange(t *testing.T) {
	const owner, meshnetGroup = 1000, 500
	with := rules{owner: owner, group: meshnetGroup, hasGroup: true}
	without := rules{owner: owner}
	for _, tt := range []struct {
		name   string
		rules  rules
		caller caller
		want   bool
	}{
		{"root", with, caller{known: true, uid: 0}, true},
		{"root without a group", without, caller{known: true, uid: 0}, true},
		{"owner", with, caller{known: true, uid: owner}, true},
		{"owner without a group", without, caller{known: true, uid: owner}, true},
		{"member", with, caller{known: true, uid: 7, groups: []uint32{7, meshnetGroup}}, true},
		{"member of another group", with, caller{known: true, uid: 7, groups: []uint32{7, 0}}, false},
		{"no such group: id 0 is none", without, caller{known: true, uid: 7, groups: []uint32{0}}, false},
		{"other", with, caller{known: true, uid: 7}, false},
		{"unknown", with, caller{}, !tellsCredentials},
	} {
		if got := tt.rules.mayChange(tt.caller); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// Who may only read gets every reading answer and no other, whatever the request.
func TestGuard(t *testing.T) {
	if !tellsCredentials {
		t.Skip("this system tells nothing of callers")
	}
	s := NewServer(&fakeNode{}, Config{Stop: func() { t.Error("stopped") }})
	s.owner = 1000
	for _, tt := range []struct {
		target string
		allow  bool
	}{
		{"GET /v1/status", true},
		{"GET /v1/members", true},
		{"GET /v1/invites", true},
		{"GET /v1/whois?addr=::1", true},
		{"GET /v1/lookup?peer=", true},
		{"GET /v1/key", true},
		{"POST /v1/netcheck", true},
		{"GET /v1/why?peer=bob", true},
		{"GET /v1/metrics", true},
		{"POST /v1/invites", false},
		{"POST /v1/invites/revoke", false},
		{"POST /v1/members/revoke", false},
		{"POST /v1/members/approve", false},
		{"POST /v1/down", false},
	} {
		verb, path, _ := strings.Cut(tt.target, " ")
		r := httptest.NewRequest(verb, path, http.NoBody)
		r = r.WithContext(withStranger(r.Context()))
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, r)
		if allowed := w.Code == http.StatusOK; allowed != tt.allow {
			t.Errorf("%s: %d", tt.target, w.Code)
		}
	}
}

// The kernel tells who we are.
func TestCallerOf(t *testing.T) {
	if !tellsCredentials {
		t.Skip("this system tells nothing of callers")
	}
	got := make(chan caller, 1)
	ask(t, got)
	c := <-got
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if !c.known || c.uid != uint32(os.Geteuid()) || len(c.groups) < len(groups) {
		t.Errorf("got %+v, want uid %d and groups %v", c, os.Geteuid(), groups)
	}
}

package prom

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	var scrapes atomic.Int64
	s, err := Listen("127.0.0.1:0", func() []Family {
		return []Family{{"scrapes_total", "", Counter, []Sample{Of(float64(scrapes.Add(1)))}}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(s.Addr().String(), nil); err == nil {
		t.Error("an address that is taken was taken again")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for path, want := range map[string]string{"/metrics": "# TYPE scrapes_total counter\nscrapes_total 1\n", "/": "404 page not found\n"} {
		answer, err := client.Get("http://" + s.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(text) != want {
			t.Errorf("%s: %q, %v, want %q", path, text, err, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := client.Get("http://" + s.Addr().String() + "/metrics"); err == nil {
		t.Error("it answers after its end")
	}
}

// A listener that breaks ends Serve, and leaves nothing behind.
func TestServerBreaks(t *testing.T) {
	s, err := Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := s.Serve(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestHandler(t *testing.T) {
	bad := []Family{{Name: "no name"}}
	good := []Family{{"a", "", Gauge, []Sample{Of(1)}}}
	for _, tt := range []struct {
		method   string
		families []Family
		code     int
		kind     string
	}{
		{http.MethodGet, good, http.StatusOK, ContentType},
		{http.MethodHead, good, http.StatusOK, ContentType},
		{http.MethodPost, good, http.StatusMethodNotAllowed, "text/plain"},
		{http.MethodGet, bad, http.StatusInternalServerError, "text/plain"},
	} {
		w := httptest.NewRecorder()
		Handler(func() []Family { return tt.families }).ServeHTTP(w, httptest.NewRequest(tt.method, "/metrics", http.NoBody))
		if kind := w.Header().Get("Content-Type"); w.Code != tt.code || !strings.HasPrefix(kind, tt.kind) {
			t.Errorf("%s: %d %s", tt.method, w.Code, kind)
		}
	}
}

package dht

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshnet/meshnet/identity"
)

// script drives a policy through virtual time, carrying its tasks out at once.
type script struct {
	t       *testing.T
	policy  policy
	now     time.Time
	skew    time.Duration // of the mesh's clock
	lacking bool
	uses    []Use
	own     []byte
	fail    error
	enough  bool

	looks, writes []time.Duration // since the start
	checks        int
}

func newScript(t *testing.T) *script {
	return &script{
		t: t, policy: policy{id: idOf(1)}, now: testTime.Add(time.Hour), own: []byte("here"),
		uses: []Use{{Secret: secretOf(1), Read: true, Write: true}},
	}
}

// pass lets time pass, in steps as long as the policy says.
func (s *script) pass(d time.Duration) {
	s.t.Helper()
	begun := testTime.Add(time.Hour)
	end := s.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 10_000 {
			s.t.Fatal("the policy does not let time pass")
		}
		st := state{now: s.now, clock: s.now.Add(s.skew), lacking: s.lacking, uses: s.uses, own: s.own}
		todo, next := s.policy.step(st)
		for _, t := range todo {
			switch {
			case !t.write:
				s.looks = append(s.looks, s.now.Sub(begun))
			case t.check:
				s.checks++
				s.policy.wrote(t, st, s.now, false, s.fail)
			default:
				s.writes = append(s.writes, s.now.Sub(begun))
				s.policy.wrote(t, st, s.now, !s.enough || t.insist, s.fail)
			}
		}
		if len(todo) > 0 {
			continue
		}
		if !next.After(s.now) {
			s.t.Fatalf("nothing to do, and the next time is %v ago", s.now.Sub(next))
		}
		if next.After(end) {
			s.now = end
			return
		}
		s.now = next
	}
}

func near(got, want time.Duration) bool {
	return got >= want-want/8-time.Second && got <= want+want/8+time.Second
}

func TestLackingLooksAgainAndAgain(t *testing.T) {
	s := newScript(t)
	s.lacking = true
	s.uses = append(s.uses, Use{Secret: secretOf(2), Write: true}, Use{Secret: secretOf(3), Read: true})
	s.pass(50 * time.Minute)
	want := []time.Duration{
		0, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 10 * time.Minute,
	}
	var last time.Duration
	for i, pause := range want {
		a, b := s.looks[2*i], s.looks[2*i+1] // both secrets that are read
		if a != b || !near(a-last, pause) {
			t.Errorf("look %d came %v after the one before, want about %v", i, a-last, pause)
		}
		last = a
	}
	if len(s.writes) != 2 || s.writes[0] != 0 || s.writes[1] != 0 {
		t.Errorf("wrote at %v, want once at once to each secret that is written to", s.writes)
	}
}

func TestSettledWritesOnceASlotAndNeverLooks(t *testing.T) {
	s := newScript(t)
	s.pass(24*time.Hour - time.Hour - time.Second) // slots begin at odd hours of the script
	if len(s.looks) != 0 {
		t.Errorf("looked at %v", s.looks)
	}
	if len(s.writes) != 12 || !near(s.writes[0], settleFor) {
		t.Fatalf("wrote %d times, at %v", len(s.writes), s.writes)
	}
	for i, at := range s.writes[1:] {
		begin := time.Duration(2*i+1) * time.Hour
		if at < begin || at >= begin+spread {
			t.Errorf("write %d at %v, not within %v of %v", i+1, at, spread, begin)
		}
		if i > 0 && at-s.writes[i] != slotLength {
			t.Errorf("write %d is %v after the one before", i+1, at-s.writes[i])
		}
	}
	if s.checks != len(s.writes) {
		t.Errorf("%d checks of %d writes", s.checks, len(s.writes))
	}
}

func TestPolicyTurns(t *testing.T) {
	for _, c := range []struct {
		name   string
		play   func(s *script)
		looks  int
		writes int
	}{
		{"enough written by others", func(s *script) {
			s.enough = true
			s.pass(30 * time.Minute)
		}, 0, 1},
		{"enough, until it lacks for long", func(s *script) {
			s.enough = true
			s.pass(10 * time.Minute)
			s.lacking = true
			s.pass(time.Minute)
		}, 3, 2},
		{"lacking ends", func(s *script) {
			s.lacking = true
			s.pass(5 * time.Second)
			s.lacking = false
			s.pass(40 * time.Minute)
		}, 1, 1},
		{"flapping does not look more often", func(s *script) {
			for range 60 {
				s.lacking = !s.lacking
				s.pass(500 * time.Millisecond)
			}
		}, 3, 1},
		{"own record changes", func(s *script) {
			s.pass(2 * time.Minute)
			for i := range 4 {
				s.own = fmt.Appendf(nil, "moved %d", i)
				s.pass(time.Minute)
			}
			s.pass(20 * time.Minute)
		}, 0, 2},
		{"own record changes while lacking", func(s *script) {
			s.lacking = true
			s.pass(2 * time.Second)
			s.own = []byte("moved")
			s.pass(70 * time.Second)
		}, 3, 2},
		{"no own record yet", func(s *script) {
			s.own = nil
			s.pass(10 * time.Minute)
			s.own = []byte("here")
			s.pass(time.Second)
		}, 0, 1},
		{"a new invite", func(s *script) {
			s.pass(10 * time.Minute)
			s.uses = append(s.uses, Use{Secret: secretOf(2), Write: true})
			s.pass(time.Second)
		}, 0, 2},
		{"a joiner only looks", func(s *script) {
			s.lacking = true
			s.uses = []Use{{Secret: secretOf(2), Read: true}}
			s.pass(50 * time.Second)
		}, 3, 0},
		{"failures are retried ever more seldom", func(s *script) {
			s.fail = errors.New("no network")
			s.pass(8 * time.Minute)
		}, 0, 5},
		{"the mesh's clock jumps by a day", func(s *script) {
			s.pass(10 * time.Minute)
			s.skew = -24 * time.Hour
			s.pass(10 * time.Second)
			s.lacking = true
			s.pass(time.Second)
		}, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t)
			c.play(s)
			if len(s.looks) != c.looks || len(s.writes) != c.writes {
				t.Errorf("looked %d times, %v, and wrote %d times, %v; want %d and %d",
					len(s.looks), s.looks, len(s.writes), s.writes, c.looks, c.writes)
			}
		})
	}
}

func TestPolicyForgetsClosedInvites(t *testing.T) {
	s := newScript(t)
	for i := range 500 {
		s.uses = []Use{{Secret: identity.Secret{1, byte(i), byte(i >> 8)}, Write: true}}
		s.pass(time.Second)
	}
	for i := range 500 {
		s.uses = append(s.uses, Use{Secret: identity.Secret{2, byte(i), byte(i >> 8)}, Write: true})
	}
	s.pass(time.Minute)
	if len(s.policy.writes) > maxUses {
		t.Errorf("%d secrets remembered", len(s.policy.writes))
	}
}

func TestEnough(t *testing.T) {
	now := testTime
	own := recordOf(1, now, 300)
	old, fresh := now.Add(-time.Hour), now.Add(-time.Minute)
	connected := func(r Record) bool { return r.Data[0] < 10 } // members 1 to 9
	for _, c := range []struct {
		name    string
		lacking bool
		task    task
		there   []Record
		want    bool
	}{
		{"nothing there", false, task{}, nil, false},
		{"only the own one", false, task{}, []Record{own}, false},
		{"one of another", false, task{}, []Record{recordOf(2, old, 200)}, false},
		{"two", false, task{}, []Record{recordOf(2, old, 200), recordOf(3, old, 200)}, true},
		{"two, one a stranger's", false, task{}, []Record{recordOf(2, old, 200), recordOf(13, old, 200)}, false},
		{"one that fills it", false, task{}, []Record{recordOf(2, old, 512), recordOf(2, old, 200)}[:1], false},
		{"one, and no room", false, task{}, []Record{recordOf(2, old, 512)}, false},
		{"two that are old, lacking", true, task{}, []Record{recordOf(2, old, 200), recordOf(3, old, 200)}, false},
		{"two that are fresh, lacking", true, task{}, []Record{recordOf(12, fresh, 200), recordOf(13, fresh, 200)}, true},
		{"the same for long", true, task{insist: true}, []Record{recordOf(12, fresh, 200), recordOf(13, fresh, 200)}, false},
		{"still there", false, task{check: true}, []Record{own}, true},
		{"gone", false, task{check: true}, []Record{recordOf(12, fresh, 200)}, false},
		{"an older one is there", false, task{check: true}, []Record{recordOf(1, old, 299)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := state{now: now, clock: now, lacking: c.lacking}
			if got := enough(c.task, s, own, c.there, connected); got != c.want {
				t.Errorf("enough: %v", got)
			}
		})
	}
	big := recordOf(1, now, 512)
	if !enough(task{}, state{clock: now}, big, []Record{recordOf(2, old, 512)}, connected) {
		t.Error("a record that would push out a connected member's is wanted")
	}
}

// In a mesh of a thousand members that talk, the locations of a slot get a few records each, and every member looks once.
func TestBigMeshWritesLittle(t *testing.T) {
	const members = 1000
	var at [locationCount][]Record
	writes := 0
	order := make([]*policy, members)
	for i := range order {
		order[i] = &policy{id: identity.PeerID{byte(i), byte(i >> 8), 1}}
	}
	clock := testTime
	uses := []Use{{Secret: secretOf(1), Read: true, Write: true}}
	tasks := make(map[*policy]int)
	for minute := range 100 {
		now := clock.Add(time.Duration(minute) * time.Minute)
		for _, p := range order {
			s := state{now: now, clock: now, uses: uses, own: slices.Repeat([]byte{7}, 300)}
			todo, _ := p.step(s)
			for _, task := range todo {
				place := &at[indexOf(p.id, slotAt(now))]
				own := Record{Key: KeyOf(p.id), At: now, Data: s.own}
				wrote := !enough(task, s, own, *place, func(Record) bool { return true })
				if wrote {
					*place = merge(own, *place, now)
					writes++
				}
				if !task.check {
					tasks[p]++
				}
				p.wrote(task, s, now, wrote, nil)
			}
		}
	}
	for p, n := range tasks {
		if n != 1 {
			t.Fatalf("%v looked %d times in a slot", p.id, n)
		}
	}
	if len(tasks) != members || writes > 2*wantedWriters*locationCount {
		t.Errorf("%d members looked, and %d wrote", len(tasks), writes)
	}
	t.Logf("%d writes by %d members in a slot", writes, members)
}

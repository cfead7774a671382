package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"io"
	"os"
	"slices"
	"time"
)

// pass has every member of a swarm make a handshake and send an echo through the new session.
type pass struct {
	name   string
	within time.Duration // that they begin in, evenly; 0: as fast as they are answered
	flying int           // with within 0: how many may be at it at a time

	seq   uint16
	began time.Time
	next  int // whose turn it is
	busy  int
	last  time.Time // the last handshake was done

	shakes []float64 // ms
	echoes []float64 // ms, from the handshake on
}

// burstWidth is below what makes a node ask for cookies.
const burstWidth = 32

// playSwarm is the worker: a spread pass at once, a burst for each line on its standard input, and the end with it. In
// between its members answer the node.
func playSwarm(flags *flag.FlagSet, args []string) error {
	var w window
	w.flags(flags)
	dir := flags.String("roster", "", "folder of the roster")
	within := flags.Duration("within", time.Minute, "time in which all begin")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := readRoster(*dir)
	if err != nil {
		return err
	}
	s, err := newSwarm(r)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	next := commands(os.Stdin)
	p := pass{name: passSpread, within: *within}
	for seq := uint16(1); ; seq++ {
		p.seq = seq
		o, err := s.run(p, w.pids)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
			return err
		}
		if more, err := s.rest(next); err != nil || !more {
			return err
		}
		p = pass{name: passBurst, flying: burstWidth}
	}
}

// rest has the members answer until there is a command; false: there will be none.
func (s *swarm) rest(next <-chan struct{}) (more bool, err error) {
	for {
		select {
		case _, more = <-next:
			return more, nil
		default:
			if err := s.step(swarmTick); err != nil {
				return false, err
			}
		}
	}
}

// commands gives a value for each line, and is closed behind the last one. Its goroutine ends with the input or the
// process.
func commands(from io.Reader) <-chan struct{} {
	lines := make(chan struct{})
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(from); scan.Scan(); {
			lines <- struct{}{}
		}
	}()
	return lines
}

// run makes a pass.
func (s *swarm) run(p pass, pids []int) (o passOutcome, err error) {
	before, err := usageNow(pids)
	if err != nil {
		return o, err
	}
	s.current = p
	s.current.began = time.Now()
	for _, d := range s.members {
		d.stage = passWaits
	}
	for s.current.next < len(s.members) || s.current.busy > 0 {
		now := time.Now()
		for s.current.next < len(s.members) && s.current.turn(now, len(s.members)) {
			s.begin(now, s.members[s.current.next])
			s.current.next++
		}
		if err := s.step(s.current.pause(now, len(s.members))); err != nil {
			return o, err
		}
	}
	after, err := usageNow(pids)
	o = s.current.outcome()
	o.Members, o.Daemons = len(s.members), after.since(before).Daemons.Seconds()
	return o, err
}

// turn reports whether the next member may begin.
func (p *pass) turn(now time.Time, members int) bool {
	if p.within > 0 {
		return !now.Before(p.due(members))
	}
	return p.busy < p.flying
}

// due is when the next member begins, of a pass that is spread.
func (p *pass) due(members int) time.Time {
	return p.began.Add(p.within * time.Duration(p.next) / time.Duration(members))
}

// pause is how long nothing but datagrams and timers can make something happen.
func (p *pass) pause(now time.Time, members int) time.Duration {
	if p.within > 0 && p.next < members {
		return max(time.Millisecond, p.due(members).Sub(now))
	}
	return swarmTick
}

// begin has a member begin.
func (s *swarm) begin(now time.Time, d *dweller) {
	d.stage, d.began, d.seq = passShakes, now, s.current.seq
	s.current.busy++
	s.perform(now, d, d.machine.Renew(now, d.peer))
}

// shaken notes that a handshake of a member's own is done.
func (s *swarm) shaken(now time.Time, d *dweller) {
	if d.stage != passShakes {
		return
	}
	d.stage, d.shaken, s.current.last = passEchoes, now, now
	s.current.shakes = append(s.current.shakes, milliseconds(now.Sub(d.began)))
	s.echo(now, d)
}

func (s *swarm) echo(now time.Time, d *dweller) {
	d.asked = now
	s.say(now, d, echoPacket(d.inner, s.inner, d.number, d.seq))
}

// echoed notes that an echo came back.
func (s *swarm) echoed(now time.Time, d *dweller, seq uint16) {
	if d.stage != passEchoes || seq != d.seq {
		return
	}
	s.current.echoes = append(s.current.echoes, milliseconds(now.Sub(d.shaken)))
	s.finish(d)
}

func (s *swarm) finish(d *dweller) {
	d.stage = passDone
	s.current.busy--
}

// advance repeats a member's echo, or gives up on it.
func (s *swarm) advance(now time.Time, d *dweller) {
	if d.stage != passShakes && d.stage != passEchoes {
		return
	}
	switch {
	case now.Sub(d.began) >= swarmPatient:
		s.finish(d)
	case d.stage == passEchoes && now.Sub(d.asked) >= swarmEcho:
		s.echo(now, d)
	}
}

func (p *pass) outcome() passOutcome {
	slices.Sort(p.shakes)
	slices.Sort(p.echoes)
	o := passOutcome{Pass: p.name, Shaken: len(p.shakes), Echoed: len(p.echoes)}
	if o.Shaken > 0 {
		o.Seconds = p.last.Sub(p.began).Seconds()
		o.Shake50, o.Shake99 = quantile(p.shakes, 0.5), quantile(p.shakes, 0.99)
	}
	if o.Echoed > 0 {
		o.Echo50, o.Echo99 = quantile(p.echoes, 0.5), quantile(p.echoes, 0.99)
	}
	return o
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Package relaytest is what every relay has to do, as tests: Run has them done with a relay of the caller's kind, be it in
// memory, behind TLS, or behind a whole HTTP front.
//
//	Start ─▶ Relay{Server, Dial} ◀─ Node   a client with a mailbox
//	                             ◀─ Raw    a stream on which a test may write anything
//
// Read first: suite.go, then node.go and raw.go.
package relaytest

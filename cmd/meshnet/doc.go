// Command meshnet runs a node and talks to a running one. It parses, calls and prints; what it does is in the packages
// below it.
//
//	flag > MESHNET_<FLAG> > --config FILE > default ──▶ settings.go ──▶ the command's file
//	up ──▶ meshnet.Start + localapi.Server          everything else ──▶ localapi.Client ──▶ socket
//	relay ──▶ relayserver.Front + Server            needs no node
//
// stdout carries the answer and nothing else. An error is one line on stderr, "meshnet: what failed: why", and a
// second one "hint: …" where something can be done. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no node is
// running there, 4 refused by the mesh.
//
// Read first: app.go, settings.go, then the file of a command; up.go, up_config.go, up_paths.go, up_run.go and detach.go
// are one, relay.go and relay_run.go another.
package main

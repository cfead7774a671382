// Bench measures how fast meshnet is beside others, on one Linux machine, as root:
//
//	go run ./bench
//
// Every contender, called a carrier, runs in a lane of its own: two network namespaces joined by one veth pair.
//
//	┌ host a ──────────────────┐                 ┌ host b ──────────────────┐
//	│ tcp-send, udp-send, ping │                 │ tcp-receive, udp-receive │
//	│            │ inner       │                 │             ▲ inner      │
//	│         daemon ── eth0 ──┼──── veth pair ──┼── eth0 ── daemon         │
//	└──────────────────────────┘                 └──────────────────────────┘
//
// With a relay, host m lies between a and b with a veth pair to each, and runs a daemon too.
//
// Loads run one at a time. A round runs every test on every carrier, so what is divided by each other was measured
// within the same minute. README.md says what each figure is and what it is not.
//
// The command scale puts one node among many members instead, which a crowd makes up and a swarm plays:
//
//	crowd ── state folder ──▶ daemon ── eth0 ── veth pair ── eth0 ── swarm: a talker each
//	  └──────────── roster: keys of the active members ────────────────▲
//
// Who owns what: main owns the run and the temporary folder; a stage owns a table's lanes and takes them down. The
// same program is also the workers (the loads, the plain forwarder, the swarm), as processes of their own within a host.
//
// Read first: run_linux.go, then lane_linux.go, one carrier_*.go, and measure_linux.go; for the command scale,
// scale_linux.go, then crowd.go and swarm_linux.go.
package main

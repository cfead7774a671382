// Package portmap has the router send what arrives at one of its outside UDP ports to the node, and keeps it so.
//
//	gateway (given, or from the routes)
//	  ├─ UDP 5351:  PCP ANNOUNCE + NAT-PMP address request, together ─▶ MAP by the first that answered (pcp.go, natpmp.go)
//	  └─ UDP 1900:  SSDP ─▶ HTTP: description ─▶ SOAP: AddPortMapping (ssdp.go, igd.go), if neither of the two worked
//
//	one lease ── half of its life ──▶ renewed by the same protocol
//	          ── gateway or port changed, router restarted ──▶ made anew at once
//	          ── Run ends ──▶ given back, within a second
//
// A router that speaks nothing costs a few packets every ten minutes in the end. Nothing here is fatal and nothing blocks: who
// wants to know asks Status, or is told by Config.Changed.
//
// Everything that comes from the network is foreign: answers count only from the gateway's own address, sizes are
// bounded, and a description may not lead anywhere but back to the gateway.
//
// Read first: mapper.go, then acquire.go. The codecs are pure.
package portmap

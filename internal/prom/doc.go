// Package prom writes counters and gauges in the Prometheus text exposition format, version 0.0.4, and serves them over
// HTTP:
//
//	# HELP meshnet_drops_total Packets that were thrown away.
//	# TYPE meshnet_drops_total counter
//	meshnet_drops_total{reason="full"} 3
//
// It keeps no numbers: whoever has them hands a function over that makes the families anew for each scrape.
//
// Read first: family.go, then text.go; gather.go turns the counters of a package into families, server.go is the HTTP
// end.
package prom

// Package proxy lets programs of this host into the network without a network interface: a SOCKS5 proxy (RFC 1928:
// CONNECT, no authentication) and an HTTP proxy (CONNECT, and requests in absolute form). Both get everything beyond
// the local connection from Config.Dial.
//
//	client ─► listener (1024 connections) ─► handshake (10 s) ─► Dial (30 s) ─► Pipe, until both sides said all
//
// A refusal is answered in the words of the protocol: what Dial's error means is asked with errors.Is, of the
// sentinels here and of the system's errors.
//
// Serve ends with its context: connections are closed, and it returns when all of them are gone.
//
// Read first: proxy.go, socks5.go, http.go, pipe.go.
package proxy

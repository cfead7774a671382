package offload

// Super reports whether a read is a superpacket, and not one packet as a program sent it.
func Super(buf []byte) bool { return len(buf) >= HeaderLen && buf[1] != gsoNone }

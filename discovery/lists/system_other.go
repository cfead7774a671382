//go:build !unix || darwin

package lists

import "net"

// systemResolver has the system look all up: its DNS servers stand in no file, and differ by domain. Times to live stay
// unknown.
func systemResolver() resolver { return system{net.DefaultResolver} }

// Package windows is package platform's System for Windows. It looks at the network and watches it; interfaces, addresses and
// routes are not made here, so that nodes run in userspace mode and Apply says so (platform.ErrNoTUN).
//
// All of it is portable (platform.Polled): the folder is where what only Windows has will live.
package windows

//go:build !unix

package safefile

// syncFolder does nothing: folders cannot be opened for syncing here, and renames are journaled.
func (d *Dir) syncFolder() error { return nil }

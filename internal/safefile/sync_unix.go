//go:build unix

package safefile

import "os"

// syncFolder makes renames within the folder last.
func (d *Dir) syncFolder() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

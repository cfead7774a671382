package localapi

import (
	"context"
	"os"
	"path/filepath"
)

// listenSystem serves the socket that everybody on the machine finds. Its folder is made where it is missing.
func listenSystem(ctx context.Context, path string) (*socket, error) {
	folder := filepath.Dir(path)
	if err := os.Mkdir(folder, 0o755); err == nil {
		if err := os.Chmod(folder, 0o755); err != nil { // whatever the umask
			return nil, err
		}
	} else if !os.IsExist(err) {
		return nil, err
	}
	return listen(ctx, path)
}

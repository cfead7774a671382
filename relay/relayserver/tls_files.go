package relayserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// reloadEvery is how often certificate files are looked at.
const reloadEvery = time.Minute

// certFiles is a certificate and its key in two files, which somebody else renews. The loop of run owns it, but for what
// is atomic.
type certFiles struct {
	cert, key string
	log       *slog.Logger
	stamp     [2]fileStamp
	current   atomic.Pointer[tls.Certificate]
}

// fileStamp changes with a file.
type fileStamp struct {
	size     int64
	modified time.Time
}

func openFiles(cert, key string, log *slog.Logger) (*certificates, error) {
	if key == "" {
		key = cert // many keep both in one
	}
	f := &certFiles{cert: cert, key: key, log: log}
	if err := f.load(); err != nil {
		return nil, fmt.Errorf("load the certificate: %w", err)
	}
	c := describe(f.current.Load())
	c.get = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current.Load(), nil }
	c.run = f.run
	return c, nil
}

// load reads both files.
func (f *certFiles) load() error {
	stamp := f.stamps()
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return err
	}
	f.stamp = stamp
	f.current.Store(&cert)
	return nil
}

func (f *certFiles) stamps() (stamp [2]fileStamp) {
	for i, path := range []string{f.cert, f.key} {
		if info, err := os.Stat(path); err == nil {
			stamp[i] = fileStamp{info.Size(), info.ModTime()}
		}
	}
	return stamp
}

// run loads the files again when they change. The old certificate stays until the new files make sense.
func (f *certFiles) run(ctx context.Context) {
	ticker := time.NewTicker(reloadEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if f.stamps() == f.stamp {
			continue
		}
		if err := f.load(); err != nil {
			f.log.Warn("the new certificate makes no sense, the old one stays", "err", err)
			continue
		}
		f.log.Info("certificate loaded again", "until", f.current.Load().Leaf.NotAfter)
	}
}

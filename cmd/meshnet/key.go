package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshnet/meshnet/identity"
	"github.com/meshnet/meshnet/internal/safefile"
	"github.com/meshnet/meshnet/localapi"
)

const (
	formatPEM  = "pem"
	formatRaw  = "raw"
	rawKeySize = 32
	maxKeyFile = 64 << 10
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Show, export and import the key that makes this node who it is",
		Example: `  meshnet key show
  meshnet key export > key.pem
  meshnet key import key.pem`,
		Args: exactly(0),
		RunE: a.does(func(*cobra.Command, []string) error {
			return usagef("which one: show, export or import?")
		}),
	}
	cmd.AddCommand(a.keyShowCommand(), a.keyExportCommand(), a.keyImportCommand())
	return cmd
}

func (a *app) keyShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Print the id and the public key",
		Long:    "Prints the id and the public key of the state folder; no node need be running.",
		Example: "  meshnet key show --json",
		Args:    exactly(0),
		RunE: a.does(func(*cobra.Command, []string) error {
			key, err := a.publicKey()
			if err != nil {
				return err
			}
			if asJSON {
				return a.document(key)
			}
			_, err = fmt.Fprintf(a.stdout, "%s\n%s", key.ID, key.Public)
			return failed("write", err)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// publicKey is that of the state folder, or where that is closed to us or not meant, that of the running node.
func (a *app) publicKey() (localapi.Key, error) {
	var ownErr error
	if a.global.socket == "" {
		id, err := a.ownKey()
		if err == nil {
			public, err := id.MarshalPublicPEM()
			return localapi.Key{ID: id.ID().String(), Public: string(public)}, err
		}
		if ownErr = err; !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return localapi.Key{}, err
		}
	}
	var key localapi.Key
	err := func() error {
		ctx, stop := a.interruptible()
		defer stop()
		sockets, err := a.sockets()
		if err != nil {
			return err
		}
		c, err := localapi.Locate(ctx, sockets...)
		if err != nil {
			return err
		}
		defer c.Close()
		key, err = c.Key(ctx)
		return err
	}()
	if err != nil && ownErr != nil {
		return key, ownErr
	}
	return key, err
}

// ownKey is the key of the state folder, which is not made.
func (a *app) ownKey() (*identity.Identity, error) {
	path, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); err != nil {
		return nil, noKey(path, err)
	}
	dir, err := safefile.Open(path)
	if err != nil {
		return nil, err
	}
	id, err := identity.Load(dir)
	if err != nil {
		return nil, noKey(path, err)
	}
	return id, nil
}

func noKey(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hinted(&absent{"there is no key in " + path}, "meshnet up makes one, meshnet key import brings one")
	}
	return err
}

// absent is fs.ErrNotExist in better words.
type absent struct{ text string }

func (e *absent) Error() string { return e.text }
func (e *absent) Unwrap() error { return fs.ErrNotExist }

func (a *app) keyExportCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "export",
		Short:   "Print the private key",
		Long:    "Prints the private key of the state folder. Whoever has it is this node.",
		Example: "  (umask 077; meshnet key export > key.pem)",
		Args:    exactly(0),
		RunE: a.does(func(*cobra.Command, []string) error {
			if format != formatPEM && format != formatRaw {
				return a.badFormat(format)
			}
			id, err := a.ownKey()
			if err != nil {
				return err
			}
			data := id.MarshalRaw()
			if format == formatPEM {
				if data, err = id.MarshalPEM(); err != nil {
					return err
				}
			}
			_, err = a.stdout.Write(data)
			return failed("write", err)
		}),
	}
	cmd.Flags().StringVar(&format, "format", formatPEM, "pem (PKCS#8) or raw (the 32 bytes of the seed)")
	return cmd
}

func (a *app) badFormat(format string) error {
	return a.bad("format", fmt.Errorf("%q is neither pem nor raw", format))
}

func (a *app) keyImportCommand() *cobra.Command {
	var format string
	var force bool
	cmd := &cobra.Command{
		Use:   "import [FILE|-]",
		Short: "Make this node who a private key says",
		Long: `Puts a private key into the state folder: PKCS#8 PEM or the 32 bytes of the seed, from a file or stdin.
A key that is not whole is refused, and so is another key for a node that belongs to a network, without --force.`,
		Example: `  meshnet key import key.pem
  openssl genpkey -algorithm ed25519 | meshnet key import -`,
		Args: atMost(1),
		RunE: a.does(func(_ *cobra.Command, args []string) error {
			if format != "" && format != formatPEM && format != formatRaw {
				return a.badFormat(format)
			}
			id, err := a.readKey(args, format)
			if err != nil {
				return err
			}
			if err := a.importKey(id, force); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.stdout, id.ID())
			return failed("write", err)
		}),
	}
	cmd.Flags().StringVar(&format, "format", "", "pem or raw (default: told by the content)")
	cmd.Flags().BoolVar(&force, "force", false, "replace the key of a node that belongs to a network; it is then no longer a member")
	return cmd
}

func (a *app) readKey(args []string, format string) (*identity.Identity, error) {
	from := a.stdin
	if len(args) == 1 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxKeyFile))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the key: %w", err)
	case format == formatRaw && len(data) != rawKeySize:
		return nil, fmt.Errorf("a raw key has %d bytes, this has %d", rawKeySize, len(data))
	case format == formatPEM && len(data) == rawKeySize:
		return nil, identity.ErrKeyFormat
	}
	return identity.ParseKey(data)
}

func (a *app) importKey(id *identity.Identity, force bool) error {
	path, err := a.stateDir()
	if err != nil {
		return err
	}
	if err := a.nobodyRuns(path); err != nil {
		return err
	}
	dir, err := safefile.Open(path)
	if err != nil {
		return err
	}
	old, err := identity.Load(dir)
	switch {
	case err == nil && old.ID() == id.ID():
		return nil
	case errors.Is(err, fs.ErrPermission):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return id.Save(dir)
	}
	if belongs(path) && !force {
		return hinted(fmt.Errorf("%s holds another key, whose node belongs to a network", path),
			"use another folder with --state, or lose that membership with --force")
	}
	if err != nil { // there is something that is no key
		if _, err := dir.SetAside(identity.KeyFile, time.Now()); err != nil {
			return err
		}
	}
	return id.Save(dir)
}

// nobodyRuns refuses while a node runs on the folder.
func (a *app) nobodyRuns(dir string) error {
	c, err := localapi.Locate(context.Background(), filepath.Join(dir, localapi.SocketFile))
	switch {
	case err == nil:
		c.Close()
		return hinted(fmt.Errorf("a node is running on %s", dir), "stop it first with: meshnet down")
	case errors.Is(err, localapi.ErrNoNode):
		return nil
	}
	return err
}

// belongs tells whether a state folder holds more than a key and what every run leaves: the ledger of a network.
func belongs(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == identity.KeyFile, name == localapi.SocketFile, name == logFile, strings.HasSuffix(name, "lock"):
		case strings.HasPrefix(name, "."), strings.Contains(name, ".corrupt-"):
		default:
			return true
		}
	}
	return false
}

package tunnel

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/meshnet/meshnet/identity"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// wgDevice is the engine over the wireguard module's device. Only the owner calls it.
type wgDevice struct {
	dev *device.Device
}

// newDevice starts a device over the tap and the bind and brings it up. closed is closed when the device ended by
// itself, because the TUN went away.
func newDevice(t *tap, bind conn.Bind, key identity.Secret, log *slog.Logger) (d *wgDevice, closed <-chan struct{}, err error) {
	dev := device.NewDevice(t, bind, deviceLogger(log))
	// Endpoints stay what Install said: the Bind's one endpoint per peer, behind which paths change.
	dev.DisableSomeRoamingForBrokenMobileSemantics()
	if err := dev.IpcSet("private_key=" + hex.EncodeToString(key[:]) + "\n"); err != nil {
		dev.Close()
		return nil, nil, fmt.Errorf("set private key: %w", err)
	}
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, nil, fmt.Errorf("open bind: %w", err)
	}
	return &wgDevice{dev}, dev.Wait(), nil
}

// configure adds or changes a peer.
func (d *wgDevice) configure(s *PeerSession) error {
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%s\npreshared_key=%s\n", s.WG.Hex(), hex.EncodeToString(s.PSK[:]))
	// The endpoint is the key; the Bind knows what is behind it.
	fmt.Fprintf(&b, "endpoint=%s\nreplace_allowed_ips=true\n", s.WG.Hex())
	for _, p := range s.AllowedIPs {
		fmt.Fprintf(&b, "allowed_ip=%s\n", p)
	}
	return d.dev.IpcSet(b.String())
}

// setPSK changes the key that the next handshake mixes in.
func (d *wgDevice) setPSK(key identity.WGKey, psk identity.Secret) error {
	return d.dev.IpcSet(fmt.Sprintf("public_key=%s\nupdate_only=true\npreshared_key=%s\n", key.Hex(), hex.EncodeToString(psk[:])))
}

// remove takes a peer out, with its session and what it staged.
func (d *wgDevice) remove(key identity.WGKey) {
	d.dev.RemovePeer(device.NoisePublicKey(key))
}

// initiate sends a fresh handshake initiation now. ExpireCurrentKeypairs opens the device's gate of one in 5 s; it
// also ends the session, so this is only for peers without one.
func (d *wgDevice) initiate(key identity.WGKey) {
	p := d.dev.LookupPeer(device.NoisePublicKey(key))
	if p == nil {
		return
	}
	p.ExpireCurrentKeypairs()
	_ = p.SendHandshakeInitiation(false) // the device logs it; the next try follows anyway
}

// sample reads every peer's counters.
func (d *wgDevice) sample() (map[identity.WGKey]sample, error) {
	text, err := d.dev.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("read device: %w", err)
	}
	return parseSamples(text)
}

var errSample = errors.New("device told something unreadable")

// parseSamples reads the answer of the configuration protocol's get.
func parseSamples(text string) (map[identity.WGKey]sample, error) {
	samples := make(map[identity.WGKey]sample)
	var key identity.WGKey
	var cur sample
	var seconds, nanos int64
	started := false
	flush := func() {
		if started {
			if seconds != 0 || nanos != 0 {
				cur.handshake = time.Unix(seconds, nanos)
			}
			samples[key] = cur
		}
		cur, seconds, nanos = sample{}, 0, 0
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		var err error
		switch name {
		case "public_key":
			flush()
			started = true
			if len(value) != hex.EncodedLen(len(key)) {
				return nil, errSample
			}
			_, err = hex.Decode(key[:], []byte(value))
		case "last_handshake_time_sec":
			seconds, err = strconv.ParseInt(value, 10, 64)
		case "last_handshake_time_nsec":
			nanos, err = strconv.ParseInt(value, 10, 64)
		case "rx_bytes":
			cur.rx, err = strconv.ParseUint(value, 10, 64)
		case "tx_bytes":
			cur.tx, err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return nil, errSample
		}
	}
	flush()
	return samples, nil
}

// close ends the device and the tap, and waits for the workers that use them.
func (d *wgDevice) close() {
	d.dev.Close()
	<-d.dev.Wait()
}

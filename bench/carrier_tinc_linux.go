package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/meshnet/meshnet/internal/netlab"
)

// startTinc runs tinc 1.0 on both sides, with its own defaults for cipher and digest.
func startTinc(ctx context.Context, s *site) (*lane, error) {
	const device = "tinc0"
	l := s.lane(nameTinc, 0)
	l.give("10.77.0.1", "10.77.0.2")
	sides := []*side{l.a, l.b}
	if err := writeTinc(sides, device); err != nil {
		return l, err
	}
	for _, x := range sides {
		dir := x.dir
		var err error
		x.daemon, err = x.host.Start(netlab.Proc{Path: "tincd", Args: []string{
			"--no-detach", "--config", dir, "--pidfile", filepath.Join(dir, "pid"),
		}})
		if err != nil {
			return l, err
		}
		if err := x.setDevice(ctx, device, s.mtu); err != nil {
			return l, err
		}
	}
	return l, l.proven(ctx)
}

// writeTinc writes both sides' folders: who they are, whom they know, and their keys.
func writeTinc(sides []*side, device string) error {
	for i, x := range sides {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		private := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
		public := &pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)}
		name, peer := fmt.Sprintf("node%d", i), fmt.Sprintf("node%d", 1-i)
		var host bytes.Buffer
		fmt.Fprintf(&host, "Address = %s\nSubnet = %s/32\n%s", x.outer, x.inner, pem.EncodeToMemory(public))
		for _, in := range sides {
			hosts := filepath.Join(in.dir, "hosts")
			if err := os.MkdirAll(hosts, 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(hosts, name), host.Bytes(), 0o600); err != nil {
				return err
			}
		}
		conf := fmt.Sprintf("Name = %s\nConnectTo = %s\nDeviceType = tun\nInterface = %s\nAddressFamily = ipv4\n", name, peer, device)
		for file, text := range map[string]string{
			"tinc.conf": conf, "tinc-up": "#!/bin/sh\n", "rsa_key.priv": string(pem.EncodeToMemory(private)),
		} {
			if err := os.WriteFile(filepath.Join(x.dir, file), []byte(text), 0o700); err != nil {
				return err
			}
		}
	}
	return nil
}

package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
)

// dialProxy has an HTTP proxy connect to u (CONNECT, RFC 9110 §9.3.6). The proxy resolves the name.
func (cfg DialConfig) dialProxy(ctx context.Context, proxy *url.URL, u URL) (net.Conn, error) {
	conn, err := cfg.connectProxy(ctx, proxy, u)
	if err != nil {
		return nil, fmt.Errorf("through proxy %s: %w", proxy.Host, err) // without its user and password
	}
	return conn, nil
}

func (cfg DialConfig) connectProxy(ctx context.Context, proxy *url.URL, u URL) (net.Conn, error) {
	conn, err := cfg.reachProxy(ctx, proxy)
	if err != nil {
		return nil, err
	}
	request := "CONNECT " + u.HostPort() + " HTTP/1.1\r\nHost: " + u.HostPort() + "\r\n"
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		request += "Proxy-Authorization: Basic " +
			base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	var resp *http.Response
	var rest []byte
	err = during(ctx, conn, func() error {
		resp, rest, err = exchange(conn, http.MethodConnect, request+"\r\n")
		return err
	})
	switch {
	case err != nil:
	case resp.StatusCode == http.StatusProxyAuthRequired && proxy.User == nil:
		err = errors.New("it wants a user and a password, as in HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT")
	case resp.StatusCode == http.StatusProxyAuthRequired:
		err = errors.New("it does not take the user and password given")
	case resp.StatusCode/100 != 2:
		err = errors.New("it answers " + resp.Status)
	default:
		return &afterRest{conn, rest}, nil
	}
	conn.Close()
	return nil, err
}

// reachProxy connects to the proxy itself.
func (cfg DialConfig) reachProxy(ctx context.Context, proxy *url.URL) (net.Conn, error) {
	ports := map[string]uint16{"http": 80, "https": 443}
	port, ok := ports[proxy.Scheme]
	if !ok {
		return nil, fmt.Errorf("%q is no kind of proxy that relays are reached through: http or https is", proxy.Scheme)
	}
	if text := proxy.Port(); text != "" {
		var err error
		if port, err = parsePort(text); err != nil {
			return nil, errors.New("its port is no number from 1 to 65535")
		}
	}
	conn, err := cfg.dialTCP(ctx, proxy.Hostname(), port)
	if err != nil || proxy.Scheme == "http" {
		return conn, err
	}
	return handshake(ctx, conn, cfg.tlsConfig(URL{Host: proxy.Hostname(), Port: port}))
}

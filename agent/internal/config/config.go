// Package config reads what a session's Secret has for the agent.
package config

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"towline.dev/agent/internal/frame"
)

// Version of the session's files that this agent understands.
const Version = 1

// Gate is where the readiness probe asks.
type Gate struct {
	Port int    `json:"port"`
	Path string `json:"path"`
}

// Seconds is a number of seconds in JSON, fractions allowed.
type Seconds time.Duration

// UnmarshalJSON reads the number.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	var number float64
	if err := json.Unmarshal(text, &number); err != nil {
		return err
	}
	if number < 0 || number > 1e9 {
		return fmt.Errorf("%g is not a sensible number of seconds", number)
	}
	*s = Seconds(number * float64(time.Second))
	return nil
}

// File is config.json.
type File struct {
	Version         int     `json:"version"`
	Session         string  `json:"session"`
	LinePort        int     `json:"line_port"`
	Gate            Gate    `json:"gate"`
	Reverse         []int   `json:"reverse"`
	HoldFor         Seconds `json:"hold_for_s"`
	KeepFor         Seconds `json:"keep_for_s"`
	CarrierLostShut Seconds `json:"carrier_lost_shut_s"`
	// Original is set where the original is kept: by port, where connections that are
	// not for the laptop are passed on to; the first that answers.
	Original map[int][]string `json:"original"`
	// Permit lists what may be dialled for the laptop, as `host:port` with `*` in either;
	// absent, it is anything.
	Permit *[]string `json:"permit"`
}

// Session is everything in the session's folder. Its keys are secrets: nothing
// prints it.
type Session struct {
	File
	HostKey   ssh.Signer
	ClientKey ssh.PublicKey
	LineKey   frame.Key
}

// Read reads the session's folder.
func Read(dir string) (*Session, error) {
	session := &Session{File: File{
		HoldFor:         Seconds(10 * time.Second),
		KeepFor:         Seconds(10 * time.Minute),
		CarrierLostShut: Seconds(30 * time.Second),
	}}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("read the session: %w", err)
	}
	if err := json.Unmarshal(text, &session.File); err != nil {
		return nil, fmt.Errorf("read config.json: %w", err)
	}
	if err := session.check(); err != nil {
		return nil, fmt.Errorf("read config.json: %w", err)
	}
	if err := session.readKeys(dir); err != nil {
		return nil, err
	}
	return session, nil
}

func (s *Session) check() error {
	if s.Version != Version {
		return fmt.Errorf("version %d, this agent knows %d", s.Version, Version)
	}
	ports := map[int]string{}
	claim := func(port int, use string) error {
		if port < 1 || port > 65535 {
			return fmt.Errorf("%s %d is not a port", use, port)
		}
		if other, taken := ports[port]; taken {
			return fmt.Errorf("port %d is both %s and %s", port, other, use)
		}
		ports[port] = use
		return nil
	}
	if err := claim(s.LinePort, "line_port"); err != nil {
		return err
	}
	if err := claim(s.Gate.Port, "gate.port"); err != nil {
		return err
	}
	for _, port := range s.Reverse {
		if err := claim(port, "reverse"); err != nil {
			return err
		}
	}
	for port, targets := range s.Original {
		if port < 1 || port > 65535 || port == s.LinePort || port == s.Gate.Port {
			return fmt.Errorf("original %d is not a port of the original's", port)
		}
		for _, target := range targets {
			if _, _, err := net.SplitHostPort(target); err != nil {
				return fmt.Errorf("original %d: %w", port, err)
			}
		}
	}
	return nil
}

func (s *Session) readKeys(dir string) error {
	hostKey, err := os.ReadFile(filepath.Join(dir, "host_key"))
	if err != nil {
		return fmt.Errorf("read the host key: %w", err)
	}
	if s.HostKey, err = ssh.ParsePrivateKey(hostKey); err != nil {
		return fmt.Errorf("read the host key: %w", err)
	}
	clientKey, err := os.ReadFile(filepath.Join(dir, "client_key"))
	if err != nil {
		return fmt.Errorf("read the client's key: %w", err)
	}
	if s.ClientKey, _, _, _, err = ssh.ParseAuthorizedKey(clientKey); err != nil {
		return fmt.Errorf("read the client's key: %w", err)
	}
	lineKey, err := os.ReadFile(filepath.Join(dir, "line_key"))
	if err != nil {
		return fmt.Errorf("read the line's key: %w", err)
	}
	if len(lineKey) != frame.KeySize {
		return fmt.Errorf("read the line's key: %d bytes, not %d", len(lineKey), frame.KeySize)
	}
	copy(s.LineKey[:], lineKey)
	return nil
}

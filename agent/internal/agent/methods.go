package agent

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"towline.dev/agent/internal/config"
	"towline.dev/agent/internal/control"
	"towline.dev/agent/internal/environ"
	"towline.dev/agent/internal/memory"
	"towline.dev/agent/internal/sockets"
	"towline.dev/agent/internal/tunnel"
)

type gateEvent struct {
	Event string `json:"event"`
	Open  bool   `json:"open"`
}

type reverseEvent struct {
	Event   string `json:"event"`
	Port    int    `json:"port"`
	Waiting int    `json:"waiting"`
}

type stoppingEvent struct {
	Event  string  `json:"event"`
	DrainS float64 `json:"drain_s"`
}

// methods are the control methods as one line's client may call them.
type methods struct {
	*Agent
	owner any
}

// Call answers one request.
func (m *methods) Call(method string, raw json.RawMessage) (any, error) {
	switch method {
	case "hello":
		return m.hello(), nil
	case "environ":
		return m.environ(), nil
	case "gate":
		return m.setGate(raw)
	case "route":
		return m.route(raw)
	case "listening":
		// A port that is only held for a process is not listened on by anybody.
		left := m.reverse.Left()
		ports := slices.DeleteFunc(sockets.Ports(), func(port int) bool { return left[port] })
		return map[string]any{"ports": ports}, nil
	case "status":
		return m.status(), nil
	}
	return nil, &control.Error{Code: control.UnknownMethod, Message: fmt.Sprintf("no method %q", method)}
}

type portResult struct {
	Port  int     `json:"port"`
	Error *string `json:"error"`
}

type helloResult struct {
	Version  int          `json:"version"`
	Session  string       `json:"session"`
	Boot     string       `json:"boot"`
	Arch     string       `json:"arch"`
	PID      int          `json:"pid"`
	UID      int          `json:"uid"`
	GID      int          `json:"gid"`
	Hostname string       `json:"hostname"`
	Cwd      string       `json:"cwd"`
	Search   []string     `json:"search"`
	Reverse  []portResult `json:"reverse"`
}

func (m *methods) hello() helloResult {
	hostname, _ := os.Hostname()
	cwd, _ := os.Getwd()
	ports := []portResult{}
	for _, port := range m.reverse.Ports() {
		result := portResult{Port: port.Port}
		if port.Error != nil {
			text := port.Error.Error()
			result.Error = &text
		}
		ports = append(ports, result)
	}
	return helloResult{
		Version: config.Version, Session: m.session.Session, Boot: m.boot, Arch: runtime.GOARCH,
		PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Hostname: hostname, Cwd: cwd,
		Search: environ.SearchDomains(), Reverse: ports,
	}
}

func (m *methods) environ() any {
	vars := []string{}
	for _, entry := range environ.First() {
		vars = append(vars, base64.StdEncoding.EncodeToString([]byte(entry)))
	}
	return map[string]any{"vars": vars}
}

func (m *methods) setGate(raw json.RawMessage) (any, error) {
	params, err := control.Params[struct {
		Open *bool `json:"open"`
	}](raw)
	if err != nil {
		return nil, err
	}
	if params.Open == nil {
		return nil, &control.Error{Code: control.BadParams, Message: "gate needs open: true or false"}
	}
	m.gate.Set(*params.Open, m.owner)
	return map[string]any{"open": m.gate.IsOpen()}, nil
}

func (m *methods) route(raw json.RawMessage) (any, error) {
	params, err := control.Params[struct {
		Mode    tunnel.Mode         `json:"mode"`
		HoldFor *config.Seconds     `json:"hold_for_s"`
		Pass    map[string][]string `json:"pass"`
		// Listen: ports that a process here leaves, and connections still come to.
		Listen []int `json:"listen"`
	}](raw)
	if err != nil {
		return nil, err
	}
	route := tunnel.Route{Mode: params.Mode, HoldFor: time.Duration(m.session.HoldFor)}
	// 0 is not "reset at once": nobody wants connections that wait for a channel of
	// the client's, which is a round trip away, to be broken.
	if params.HoldFor != nil && *params.HoldFor > 0 {
		route.HoldFor = time.Duration(*params.HoldFor)
	}
	switch params.Mode {
	case tunnel.ToClient, tunnel.Hold:
	case tunnel.Pass:
		if route.Targets, err = targets(params.Pass); err != nil {
			return nil, err
		}
	default:
		return nil, &control.Error{Code: control.BadParams, Message: fmt.Sprintf("mode %q is none of client, hold, pass", params.Mode)}
	}
	held := m.reverse.SetRoute(route)
	if params.Mode == tunnel.Hold {
		for _, number := range params.Listen {
			m.reverse.ListenOnceFree(number)
		}
	}
	return map[string]any{"held": held}, nil
}

func targets(pass map[string][]string) (map[int][]string, error) {
	result := map[int][]string{}
	for text, addresses := range pass {
		port, err := strconv.Atoi(text)
		if err != nil {
			return nil, &control.Error{Code: control.BadParams, Message: fmt.Sprintf("%q is not a port", text)}
		}
		for _, address := range addresses {
			if _, _, err := net.SplitHostPort(address); err != nil {
				return nil, &control.Error{Code: control.BadParams, Message: fmt.Sprintf("%q is not an address and port", address)}
			}
		}
		result[port] = addresses
	}
	return result, nil
}

func (m *methods) status() any {
	return map[string]any{
		"gate": m.gate.IsOpen(), "lines": m.lines.Lines(), "connections": m.reverse.Open(),
		"held": m.reverse.Held(), "memory_bytes": memory.Resident(),
		"uptime_s": time.Since(m.started).Seconds(),
	}
}

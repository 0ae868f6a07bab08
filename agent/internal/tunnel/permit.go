package tunnel

import (
	"errors"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
)

var errNotPermitted = errors.New("the session does not permit this target")

// Permit is what a session's client may have dialled.
type Permit struct{ hosts, ports []string }

// NewPermit reads targets as config.json has them: `host:port`, `*` for anything in
// either part of it, and `$domain` for the cluster's, which the client cannot know yet.
func NewPermit(targets []string, domain string) (*Permit, error) {
	permit := &Permit{}
	for _, target := range targets {
		host, port, err := net.SplitHostPort(strings.Replace(target, "$domain", domain, 1))
		if err == nil {
			_, err = path.Match(host, "")
		}
		if err != nil {
			return nil, fmt.Errorf("permit %q: %w", target, err)
		}
		permit.hosts = append(permit.hosts, canonical(host))
		permit.ports = append(permit.ports, port)
	}
	return permit, nil
}

// Allows tells whether a target is among them; nil allows anything.
func (p *Permit) Allows(host string, port int) bool {
	if p == nil {
		return true
	}
	host = canonical(host)
	if strings.ContainsAny(host, "/*?[\\") {
		return false
	}
	for i, pattern := range p.hosts {
		if p.ports[i] != "*" && p.ports[i] != strconv.Itoa(port) {
			continue
		}
		if matched, _ := path.Match(pattern, host); matched {
			return true
		}
	}
	return false
}

// canonical spells a name as one of its spellings: DNS knows no case, and the root's dot
// changes nothing.
func canonical(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

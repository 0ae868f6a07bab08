// Package environ is the environment that the container's first process got.
package environ

import (
	"bytes"
	"os"
	"strings"
	"sync"
)

// First is the environment as the kubelet gave it, entry by entry, in its order.
//
// The starter passes it on untouched, so it is the agent's own. It is read from
// /proc since os.Environ leaves out names that come twice, and what the
// container really has is the point.
var First = sync.OnceValue(func() []string {
	block, err := os.ReadFile("/proc/self/environ")
	if err != nil || len(block) == 0 {
		return os.Environ()
	}
	var vars []string
	for _, entry := range bytes.Split(bytes.TrimSuffix(block, []byte{0}), []byte{0}) {
		vars = append(vars, string(entry))
	}
	return vars
})

// Lookup gives the value that getenv would: the first entry of that name.
func Lookup(vars []string, name string) string {
	for _, entry := range vars {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// With puts entries in, each in place of the one that had its name.
func With(vars []string, entries ...string) []string {
	result := append([]string(nil), vars...)
	for _, entry := range entries {
		name, _, _ := strings.Cut(entry, "=")
		at := -1
		for i := range result {
			if strings.HasPrefix(result[i], name+"=") {
				at = i
				break
			}
		}
		if at < 0 {
			result = append(result, entry)
		} else {
			result[at] = entry
		}
	}
	return result
}

// SearchDomains are those of the container's resolv.conf: they tell the
// cluster's own domain.
func SearchDomains() []string {
	domains := []string{}
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return domains
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "search" {
			domains = words[1:] // the last one counts (resolv.conf(5))
		}
	}
	return domains
}

// ClusterDomain is the cluster's own, by the search domains of a pod.
func ClusterDomain(search []string) string {
	for _, each := range search {
		if _, domain, found := strings.Cut("."+strings.TrimSuffix(each, "."), ".svc."); found {
			return domain
		}
	}
	return "cluster.local"
}

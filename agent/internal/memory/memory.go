// Package memory keeps the agent small in whatever the container may use.
package memory

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// shareOfLimit of the container's memory is the agent's soft limit: the rest
	// is for the commands that run in the container, stacks and the kernel's
	// socket buffers, which count too.
	shareOfLimit = 0.7
	// softLimitAtMost: with no limit, or a large one, the agent still does not
	// collect garbage more lazily than this.
	softLimitAtMost = 256 << 20
	// threadsAtMost: a node with 96 cores would get 96 allocator caches and as
	// many collector workers for a process that moves bytes between sockets.
	threadsAtMost = 4
	// assumed where no limit can be read.
	assumed = 512 << 20
)

// Tune sets the runtime's limits and returns the container's memory in bytes.
func Tune() int64 {
	limit := containerLimit()
	debug.SetMemoryLimit(min(int64(float64(limit)*shareOfLimit), softLimitAtMost))
	// The container's GOGC and GODEBUG are meant for its own programs.
	debug.SetGCPercent(75)
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), threadsAtMost))
	return limit
}

// containerLimit reads cgroup v2, then v1.
func containerLimit() int64 {
	for _, path := range []string{
		"/sys/fs/cgroup/memory.max",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes",
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 && limit < 1<<50 {
			return limit
		}
		return assumed
	}
	return assumed
}

// Resident is what the process holds now, in bytes.
func Resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// Package memory keeps the agent small in whatever the container may use.
package memory

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
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
	// quietPercent keeps an idle agent small. The container's GOGC and GODEBUG are
	// meant for its own programs.
	quietPercent = 75
	// bulkPercent: SSH makes a slice of each packet, and a heap of 3 MB that is
	// collected whenever it has doubled costs a third of an upload's time. It means
	// a collection every 16 MB; the soft limit holds all the same.
	bulkPercent = 400
	// tightPercent is for containers below tightBelow.
	tightPercent = 200
	tightBelow   = 128 << 20
	// quietAfter the last bulk the memory goes back.
	quietAfter = 3 * time.Second
)

// Tune sets the runtime's limits and returns the container's memory in bytes.
func Tune() (int64, *Collector) {
	limit := containerLimit()
	debug.SetMemoryLimit(min(int64(float64(limit)*shareOfLimit), softLimitAtMost))
	debug.SetGCPercent(quietPercent)
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), threadsAtMost))
	return limit, NewCollector(limit)
}

// Collector makes the garbage collector lazy while there is bulk.
type Collector struct {
	percent int

	mu    sync.Mutex
	bulk  int
	lazy  bool
	quiet *time.Timer
}

// NewCollector is for a container of so many bytes.
func NewCollector(containerBytes int64) *Collector {
	c := &Collector{percent: bulkPercent}
	if containerBytes < tightBelow {
		c.percent = tightPercent
	}
	return c
}

// Begin tells that a connection carries bulk, until End.
func (c *Collector) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bulk++
	if !c.lazy {
		c.lazy = true
		debug.SetGCPercent(c.percent)
	}
}

// End is called once for each Begin.
func (c *Collector) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bulk--
	if c.bulk > 0 {
		return
	}
	if c.quiet == nil {
		c.quiet = time.AfterFunc(quietAfter, c.settle)
	} else {
		c.quiet.Reset(quietAfter)
	}
}

// settle gives the memory back, unless there is bulk again.
func (c *Collector) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bulk > 0 || !c.lazy {
		return
	}
	c.lazy = false
	debug.SetGCPercent(quietPercent)
	debug.FreeOSMemory()
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

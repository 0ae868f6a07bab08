package agent

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"towline.dev/agent/internal/control"
)

const (
	// lookEvery: the client waits for a port that comes or goes, not for its own look at it.
	lookEvery = 100 * time.Millisecond
	// restFor so many times what a look took: half a percent of a core, where a pod has
	// thousands of connections.
	restFor = 200
)

type listeningEvent struct {
	Event string `json:"event"`
	Ports []int  `json:"ports"`
}

// listeners tells of each change of the ports that are listened on, once it was asked.
type listeners struct {
	events *control.Events
	once   sync.Once
	mu     sync.Mutex
	told   []int
}

// watch gives the ports now; changes since then are told as events.
func (l *listeners) watch() []int {
	ports := l.look()
	l.once.Do(func() {
		go func() {
			for {
				began := time.Now()
				l.look()
				time.Sleep(max(lookEvery, restFor*time.Since(began)))
			}
		}()
	})
	return ports
}

func (l *listeners) look() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	ports := listening()
	if !slices.Equal(ports, l.told) {
		l.told = ports
		l.events.Emit(listeningEvent{"listening", ports})
	}
	return ports
}

// listenState is TCP_LISTEN in the kernel's tables.
const listenState = "0A"

// listening gives the TCP ports that the pod's processes listen on, for others than
// themselves: a Service does not lead to a loopback address.
func listening() []int {
	ports := []int{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			continue // that family is off
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			ports = append(ports, listeningIn(lines.Text())...)
		}
		_ = file.Close()
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// listeningIn reads one line of proc_net_tcp(5).
func listeningIn(line string) []int {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] != listenState {
		return nil
	}
	address, text, ok := strings.Cut(fields[1], ":")
	// 127/8 in the kernel's byte order, and ::1.
	if !ok || len(address) == 8 && strings.HasSuffix(address, "7F") || address == "00000000000000000000000001000000" {
		return nil
	}
	port, err := strconv.ParseUint(text, 16, 16)
	if err != nil {
		return nil
	}
	return []int{int(port)}
}

package agent

import (
	"slices"
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
	// ports gives those of the moment.
	ports func() []int
	once  sync.Once
	mu    sync.Mutex
	told  []int
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
	ports := l.ports()
	if !slices.Equal(ports, l.told) {
		l.told = ports
		l.events.Emit(listeningEvent{"listening", ports})
	}
	return ports
}

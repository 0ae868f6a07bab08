package memory

import (
	"math"
	"runtime/debug"
	"testing"
)

// percent reads the collector's setting, which can only be read by setting it.
func percent() int {
	found := debug.SetGCPercent(math.MaxInt32)
	debug.SetGCPercent(found)
	return found
}

func TestTheCollectorIsLazyOnlyWhileThereIsBulk(t *testing.T) {
	before := debug.SetGCPercent(quietPercent)
	defer debug.SetGCPercent(before)
	for _, c := range []struct {
		containerBytes int64
		bulk           int
	}{{512 << 20, bulkPercent}, {64 << 20, tightPercent}} {
		collector := NewCollector(c.containerBytes)
		collector.Begin()
		collector.Begin()
		collector.End()
		collector.settle()
		if got := percent(); got != c.bulk {
			t.Errorf("while one of two goes on: %d, want %d", got, c.bulk)
		}
		collector.End()
		collector.settle()
		if got := percent(); got != quietPercent {
			t.Errorf("after the last: %d, want %d", got, quietPercent)
		}
		collector.Begin()
		if got := percent(); got != c.bulk {
			t.Errorf("with bulk again: %d, want %d", got, c.bulk)
		}
		collector.End()
		collector.settle()
	}
}

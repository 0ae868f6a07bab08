// Package tunnel joins sockets in the pod with channels of the client.
package tunnel

import (
	"sync"
	"sync/atomic"

	"towline.dev/agent/internal/memory"
)

const (
	// toAgentCredit and toClientCredit: what a channel may have under way before
	// its first grant (docs/protocol.md).
	toAgentCredit  = 16 << 10
	toClientCredit = 64 << 10
	// creditAtMost is where a fast channel's credit ends: SSH's own window.
	creditAtMost = 2 << 20

	// narrowChunk is what an ordinary connection reads at once. SSH keeps a write
	// buffer for each channel as long as its longest packet, for the channel's
	// life, so this is also what 1,000 connections cost.
	narrowChunk = 8 << 10
	// wideChunk is for bulk: just under the longest SSH packet (256 KiB with its
	// frame), since the cost per packet is what bounds a stream.
	wideChunk = 240 << 10
	// wideAfter full reads in a row a connection is bulk.
	wideAfter = 4

	// requestChunk is held by each connection while nothing arrives for it. A read
	// that fills it means that more is there, so it is no size that messages have.
	requestChunk = 1009
	// writeChunk is what a busy upload writes at once.
	writeChunk = 64 << 10

	// narrowSocket bounds the kernel's buffers of each connection when there are
	// many: they count as the container's memory, and 1,000 stopped readers would
	// fill the default ones with 128 MB. The kernel doubles these for its own needs.
	narrowReceive = 8 << 10
	narrowSend    = 4 << 10
	// connectionCost is what one connection holds whose reader has stopped, of memory
	// that counts as the container's (42 MB with 1,000 of them, 9 MB without).
	connectionCost = 56 << 10
	// roomySockets connections get the kernel's own, self-adjusting buffers.
	roomySockets = 64
)

// Budget is the memory that all tunnels share.
type Budget struct {
	// credit is what may still be granted beyond each channel's first credit.
	credit atomic.Int64
	// wide and busy count the large buffers that may be out at once.
	wide chan struct{}
	busy chan struct{}
	read chan struct{}
	// collector is lazy while any of them is out.
	collector *memory.Collector

	sockets atomic.Int64
	// socketsAtMost are open at once; the next is reset. Beyond that the kernel would
	// end the agent, and all connections with it.
	socketsAtMost int64
}

// NewBudget divides a share of the container's memory.
func NewBudget(containerBytes int64, collector *memory.Collector) *Budget {
	// Of 64 MiB, 1,000 channels whose readers have stopped keep 18 in their first
	// credit and 12 in stacks; a sixteenth leaves room for the collector.
	share := min(max(containerBytes/16, 2<<20), 64<<20)
	b := &Budget{
		wide: make(chan struct{}, max(share/(4*wideChunk), 2)),
		busy: make(chan struct{}, 24),
		read: make(chan struct{}, 64),

		collector:     collector,
		socketsAtMost: max(containerBytes/connectionCost, 2*roomySockets),
	}
	b.credit.Store(share)
	return b
}

// takeCredit takes n if that leaves others enough: nobody gets more than a
// quarter of what is left.
func (b *Budget) takeCredit(n int64) bool {
	for {
		left := b.credit.Load()
		if n > left/4 {
			return false
		}
		if b.credit.CompareAndSwap(left, left-n) {
			return true
		}
	}
}

func (b *Budget) giveCredit(n int64) { b.credit.Add(n) }

// bulk takes one of some large buffers' slots, if there is one; ended gives it back.
func (b *Budget) bulk(slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		b.collector.Begin()
		return true
	default:
		return false
	}
}

func (b *Budget) ended(slots chan struct{}) {
	<-slots
	b.collector.End()
}

func pool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

var (
	narrowPool = pool(narrowChunk)
	widePool   = pool(wideChunk)
	writePool  = pool(writeChunk)
)

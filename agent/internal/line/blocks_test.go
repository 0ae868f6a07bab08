package line

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestQueueKeepsWhatItGot compares the queue with a plain slice, over any mix of
// appends, fills that are under way, and drops.
func TestQueueKeepsWhatItGot(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q queue
	var model []byte
	next := byte(0)
	produce := func(p []byte) {
		for i := range p {
			p[i] = next
			next++
		}
		model = append(model, p...)
	}
	for step := range 20000 {
		switch random.IntN(4) {
		case 0:
			p := make([]byte, random.IntN(3*blockSize/2))
			produce(p)
			q.append(p)
		case 1:
			// A carrier's reader fills while the reader above drops.
			space := q.space()
			n := 1 + random.IntN(len(space))
			dropped := random.IntN(len(model) + 1)
			q.drop(dropped)
			model = model[dropped:]
			produce(space[:n])
			q.filled(n)
		default:
			n := random.IntN(len(model) + 1)
			p := make([]byte, n)
			if got := q.read(p); got != n || !bytes.Equal(p, model[:n]) {
				t.Fatalf("step %d: read %d of %d bytes, or others", step, got, n)
			}
			if n > 0 {
				from := random.IntN(n)
				piece := bytes.Join(q.slices(nil, from, n-from), nil)
				if !bytes.Equal(piece, model[from:n]) {
					t.Fatalf("step %d: slices differ", step)
				}
			}
			q.drop(n)
			model = model[n:]
		}
		if q.size != len(model) {
			t.Fatalf("step %d: %d bytes, not %d", step, q.size, len(model))
		}
		if spare := len(q.blocks)*blockSize - q.size; spare > 3*blockSize {
			t.Fatalf("step %d: %d bytes kept for nothing", step, spare)
		}
	}
}

package line

import "sync"

// blockSize: an idle line keeps at most one block in each direction.
const blockSize = 32 << 10

var blockPool = sync.Pool{New: func() any { return new([blockSize]byte) }}

// queue is a byte queue in blocks: appended at the end, dropped at the front,
// read anywhere between, with no copying when it grows.
type queue struct {
	blocks []*[blockSize]byte
	// start is where the first byte lies in the first block.
	start int
	size  int
	// filling: space was given out, so its place must not move.
	filling bool
}

// space gives room for at least one byte at the end; filled tells what was used.
func (q *queue) space() []byte {
	if q.size == 0 && q.start < blockSize {
		q.start = 0
	}
	q.filling = true
	end := q.start + q.size
	if end == len(q.blocks)*blockSize {
		q.blocks = append(q.blocks, blockPool.Get().(*[blockSize]byte))
	}
	return q.blocks[end/blockSize][end%blockSize:]
}

func (q *queue) filled(n int) {
	q.size += n
	q.filling = false
}

func (q *queue) append(p []byte) {
	for len(p) > 0 {
		n := copy(q.space(), p)
		q.filled(n)
		p = p[n:]
	}
}

// slices appends the pieces of [from, from+n) to list, without copying.
func (q *queue) slices(list [][]byte, from, n int) [][]byte {
	for at := q.start + from; n > 0; {
		piece := q.blocks[at/blockSize][at%blockSize:]
		piece = piece[:min(n, len(piece))]
		list = append(list, piece)
		at += len(piece)
		n -= len(piece)
	}
	return list
}

// read copies from the front, without dropping.
func (q *queue) read(p []byte) int {
	n := min(len(p), q.size)
	done := 0
	for at := q.start; done < n; {
		c := copy(p[done:n], q.blocks[at/blockSize][at%blockSize:])
		done += c
		at += c
	}
	return n
}

// drop forgets n bytes at the front and gives their blocks back.
func (q *queue) drop(n int) {
	q.start += n
	q.size -= n
	gone := q.start / blockSize
	if gone == len(q.blocks) && gone > 0 {
		// Empty, at the very end: keep the last block for what comes next.
		gone--
		q.start = gone * blockSize
	}
	q.start -= gone * blockSize
	q.release(gone)
}

func (q *queue) release(n int) {
	if n == 0 {
		return
	}
	for _, block := range q.blocks[:n] {
		blockPool.Put(block)
	}
	kept := copy(q.blocks, q.blocks[n:])
	clear(q.blocks[kept:])
	q.blocks = q.blocks[:kept]
}

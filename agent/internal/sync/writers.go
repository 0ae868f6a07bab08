package sync

import (
	"crypto/sha256"
	"slices"
	gosync "sync"
)

const (
	// smallAtMost bytes of a file are gathered and then written by a writer.
	smallAtMost = 128 << 10
	// aheadAtMost bytes wait for writers.
	aheadAtMost = 4 << 20
	// eachAhead of files wait for one writer, so that it has work while the next folder comes.
	eachAhead = 128
)

// smallFile is received into memory.
type smallFile struct {
	*stagedFile
	path    string
	content []byte
}

func (f *smallFile) take(content []byte) {
	if f.content == nil {
		// Mostly all of it; what is behind it in the same memory is another frame.
		f.content = slices.Clip(content)
		return
	}
	f.content = append(f.content, content...)
}

// write makes the file, if what came is what it is to be.
func (f *smallFile) write(p *place) {
	if int64(len(f.content)) > f.entry.Size {
		f.err = errMore
		return
	}
	if sha256.Sum256(f.content) != f.entry.Digest {
		f.err = errNotWhole
		return
	}
	fd, err := f.create(p, f.path)
	if err != nil {
		f.err = err
		return
	}
	f.err = writeAll(fd, f.content)
	f.close(fd)
}

// writers write small files, several at once: where a file system is slow to make a file
// (a network's is, by a round trip or more each), that is most of a first sync. Files of a
// folder go to one of them: a folder takes one new file at a time.
type writers struct {
	place *place
	// queues are there from the first file of a batch to its end.
	queues []chan *smallFile
	all    gosync.WaitGroup

	mu    gosync.Mutex
	room  *gosync.Cond
	ahead int
}

func newWriters(p *place) *writers {
	w := &writers{place: p}
	w.room = gosync.NewCond(&w.mu)
	return w
}

// write takes a file; it waits while too much waits already.
func (w *writers) write(f *smallFile) {
	if w.queues == nil {
		w.start()
	}
	w.mu.Lock()
	for w.ahead > aheadAtMost {
		w.room.Wait()
	}
	w.ahead += len(f.content)
	w.mu.Unlock()
	w.queues[slot(parent(f.path))] <- f
}

func (w *writers) start() {
	w.queues = make([]chan *smallFile, slots)
	for each := range w.queues {
		queue := make(chan *smallFile, eachAhead)
		w.queues[each] = queue
		w.all.Go(func() {
			for f := range queue {
				size := len(f.content)
				f.write(w.place)
				f.content = nil
				w.mu.Lock()
				w.ahead -= size
				w.mu.Unlock()
				w.room.Signal()
			}
		})
	}
}

// settle waits for all of them.
func (w *writers) settle() {
	for _, queue := range w.queues {
		close(queue)
	}
	w.all.Wait()
	w.queues = nil
}

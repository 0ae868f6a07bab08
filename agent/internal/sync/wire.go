// Package sync is the agent's side of a synced folder: it scans, watches, stages and
// applies; what is to change the client decides. docs/protocol.md has the frames.
package sync

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const protocolVersion = 1

// frameAtMost bytes of one frame; contents come in pieces of dataAtMost.
const (
	frameAtMost = 8 << 20
	dataAtMost  = 256 << 10
	// entriesAtMost bytes of entries go into one frame.
	entriesAtMost = 256 << 10
)

// From the client.
const (
	frameOpen    = 0x01
	frameRoom    = 0x02
	frameFile    = 0x03
	frameContent = 0x04
	frameAbandon = 0x05
	frameCommit  = 0x06
	frameFetch   = 0x07
	frameRescan  = 0x08
	frameDelta   = 0x09
	frameUnpack  = 0x0a
)

// From the agent.
const (
	frameOpened       = 0x81
	frameHasRoom      = 0x82
	frameDone         = 0x86
	frameFetched      = 0x87
	frameFetchContent = 0x88
	frameFetchEnd     = 0x89
	frameLacking      = 0x8a
	frameFetchCopy    = 0x8b
	frameRefused      = 0x8f
	frameEntries      = 0x90
	frameSettled      = 0x91
	frameNote         = 0x92
	framePacked       = 0x93
)

var errShort = errors.New("a frame is shorter than it says")

// reading takes a frame's payload apart; after an error all is zero.
type reading struct {
	left []byte
	err  error
}

func (r *reading) take(n int) []byte {
	if n < 0 || n > len(r.left) {
		r.err, r.left = errShort, nil
		return nil
	}
	taken := r.left[:n]
	r.left = r.left[n:]
	return taken
}

func (r *reading) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reading) u16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reading) u32() int {
	if b := r.take(4); b != nil {
		return int(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *reading) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reading) short() string { return string(r.take(r.u16())) }

// Named is an entry with its path.
type Named struct {
	Path string
	Entry
}

func (r *reading) named() Named {
	n := Named{Path: r.short()}
	n.Kind = Kind(r.u8())
	n.Executable = r.u8()&1 != 0
	n.Mtime = int64(r.u64())
	n.Size = int64(r.u64())
	switch n.Kind {
	case File:
		copy(n.Digest[:], r.take(len(n.Digest)))
	case Link, Other:
		n.Target = r.short()
	case Gone, Folder:
	default:
		r.err = fmt.Errorf("an entry of kind %d", n.Kind)
	}
	if n.Size < 0 {
		r.err = errors.New("an entry of negative size")
	}
	return n
}

func short(to []byte, text string) []byte {
	if len(text) > 0xffff {
		text = text[:0xffff]
	}
	to = binary.BigEndian.AppendUint16(to, uint16(len(text)))
	return append(to, text...)
}

func appendNamed(to []byte, path string, e Entry) []byte {
	to = short(to, path)
	flags := byte(0)
	if e.Executable {
		flags = 1
	}
	to = append(to, byte(e.Kind), flags)
	to = binary.BigEndian.AppendUint64(to, uint64(e.Mtime))
	to = binary.BigEndian.AppendUint64(to, uint64(e.Size))
	switch e.Kind {
	case File:
		to = append(to, e.Digest[:]...)
	case Link, Other:
		to = short(to, e.Target)
	}
	return to
}

// frame is one from the client.
type frame struct {
	kind    byte
	payload []byte
}

func readFrame(from *bufio.Reader) (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:4])
	if size < 1 || size > frameAtMost {
		return frame{}, fmt.Errorf("a frame of %d bytes", size)
	}
	payload := make([]byte, size-1)
	_, err := io.ReadFull(from, payload)
	return frame{head[4], payload}, err
}

// writing sends frames; one goroutine uses it.
type writing struct {
	to *bufio.Writer
	// packs is set while frames are gathered and packed.
	packs *packing
}

func (w *writing) flush() error {
	if w.packs != nil {
		if err := w.packs.flush(w); err != nil {
			return err
		}
	}
	return w.to.Flush()
}

func (w *writing) frame(kind byte, parts ...[]byte) error {
	if w.packs == nil {
		return w.now(kind, parts...)
	}
	gathering := writing{to: bufio.NewWriterSize(&w.packs.gathered, 16)}
	if err := gathering.now(kind, parts...); err != nil {
		return err
	}
	_ = gathering.to.Flush()
	if w.packs.gathered.Len() < packAbove {
		return nil
	}
	return w.packs.flush(w)
}

func (w *writing) now(kind byte, parts ...[]byte) error {
	size := 1
	for _, part := range parts {
		size += len(part)
	}
	var head [5]byte
	binary.BigEndian.PutUint32(head[:4], uint32(size))
	head[4] = kind
	if _, err := w.to.Write(head[:]); err != nil {
		return err
	}
	for _, part := range parts {
		if _, err := w.to.Write(part); err != nil {
			return err
		}
	}
	return nil
}

package sync

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"os"
)

// A large file that is there in another version goes over as what is not in that one. The
// client cuts its version into blocks and sends a sum of each (src/towline/sync/delta.py);
// the agent looks for them at every offset of its own, since that is the side that can go
// through a file byte by byte in no time. Whatever comes of it is only used if the digest
// of the whole file is right, so that the sums may be short.

const (
	sumBytes      = 12 // Adler-32, and the first 8 bytes of SHA-256
	blockAtLeast  = 1 << 10
	blockAtMost   = 4 << 20
	rollingBuffer = 1 << 20
	adlerModulus  = 65521
	// sentAnyway: so little is not looked for at other offsets.
	sentAnyway = 256 << 10
)

type sums struct {
	block  int
	strong [][8]byte
	byWeak map[uint32][]int32
	// filter has a bit for each weak sum folded to 20: most offsets are dismissed by it.
	filter []uint64
}

func parseSums(block int, content []byte) (*sums, error) {
	if block < blockAtLeast || block > blockAtMost || len(content)%sumBytes != 0 {
		return nil, fmt.Errorf("%d bytes of sums of blocks of %d", len(content), block)
	}
	s := &sums{block: block, byWeak: map[uint32][]int32{}, filter: make([]uint64, 1<<14)}
	for ; len(content) > 0; content = content[sumBytes:] {
		weak := binary.BigEndian.Uint32(content)
		s.byWeak[weak] = append(s.byWeak[weak], int32(len(s.strong)))
		s.strong = append(s.strong, [8]byte(content[4:sumBytes]))
		bit := fold(weak)
		s.filter[bit>>6] |= 1 << (bit & 63)
	}
	return s, nil
}

func fold(weak uint32) uint32 { return weak * 2654435761 >> 12 }

// find gives the blocks that have this content.
func (s *sums) find(weak uint32, content []byte) (found []int32) {
	candidates := s.byWeak[weak]
	if len(candidates) == 0 {
		return nil
	}
	whole := sha256.Sum256(content)
	for _, each := range candidates {
		if s.strong[each] == [8]byte(whole[:8]) {
			found = append(found, each)
		}
	}
	return found
}

// roll goes through a file: what is in no block is a literal, the rest matches.
func (s *sums) roll(from io.Reader, literal func([]byte) error, match func(found []int32, offset int64) error) error {
	buffer := make([]byte, max(rollingBuffer, 4*s.block))
	// n times what leaves the window, modulo Adler's.
	var leaving [256]uint32
	for value := range leaving {
		leaving[value] = uint32(uint64(s.block) * uint64(value) % adlerModulus)
	}
	var offset int64 // of the buffer in the file
	said, at, end := 0, 0, 0
	var a, b uint32
	isFresh, isOver := true, false
	for {
		if end-at <= s.block && !isOver {
			if err := literal(buffer[said:at]); err != nil {
				return err
			}
			offset += int64(at)
			end = copy(buffer, buffer[at:end])
			said, at = 0, 0
			n, err := io.ReadFull(from, buffer[end:])
			end += n
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				isOver = true
			} else if err != nil {
				return err
			}
		}
		if end-at < s.block {
			return literal(buffer[said:end])
		}
		if isFresh {
			weak := adler32.Checksum(buffer[at : at+s.block])
			a, b, isFresh = weak&0xffff, weak>>16, false
		}
		// Most of the time is spent here.
		filter, last := s.filter, end-s.block
		for at < last {
			bit := fold(b<<16 | a)
			if filter[bit>>6]&(1<<(bit&63)) != 0 {
				break
			}
			out, in := buffer[at], buffer[at+s.block]
			a = (a + uint32(in) + adlerModulus - uint32(out)) % adlerModulus
			b = (b + a + 2*adlerModulus - 1 - leaving[out]) % adlerModulus
			at++
		}
		if found := s.find(b<<16|a, buffer[at:at+s.block]); found != nil {
			if err := errors.Join(literal(buffer[said:at]), match(found, offset+int64(at))); err != nil {
				return err
			}
			at += s.block
			said, isFresh = at, true
			continue
		}
		if end-at == s.block {
			if isOver {
				return literal(buffer[said:end])
			}
			continue
		}
		out, in := buffer[at], buffer[at+s.block]
		a = (a + uint32(in) + adlerModulus - uint32(out)) % adlerModulus
		b = (b + a + 2*adlerModulus - 1 - leaving[out]) % adlerModulus
		at++
	}
}

// assembly makes a file of blocks of another one, and of what the client sends.
type assembly struct {
	base *os.File
	size int64
	sums *sums
	// from is where each block is in the base, or -1.
	from []int64
	next int
	// left bytes of the block that the client sends now.
	left int64
}

func (a *assembly) blocks() int {
	return int((a.size + int64(a.sums.block) - 1) / int64(a.sums.block))
}

func (a *assembly) length(block int) int64 {
	return min(int64(a.sums.block), a.size-int64(block)*int64(a.sums.block))
}

// look finds the blocks that the base has; lacking are runs of those that it has not.
func (a *assembly) look() (lacking []byte, err error) {
	a.from = make([]int64, a.blocks())
	for each := range a.from {
		a.from[each] = -1
	}
	if a.base != nil && a.inPlace()*a.sums.block > sentAnyway {
		err = a.sums.roll(a.base, func([]byte) error { return nil }, func(found []int32, offset int64) error {
			for _, each := range found {
				if int(each) < len(a.from) && a.from[each] < 0 && a.length(int(each)) == int64(a.sums.block) {
					a.from[each] = offset
				}
			}
			return nil
		})
	}
	count := uint32(0)
	lacking = binary.BigEndian.AppendUint32(nil, 0)
	for at := 0; at < len(a.from); at++ {
		first := at
		for at < len(a.from) && a.from[at] < 0 {
			at++
		}
		if at > first {
			count++
			lacking = binary.BigEndian.AppendUint32(lacking, uint32(first))
			lacking = binary.BigEndian.AppendUint32(lacking, uint32(at-first))
		}
	}
	binary.BigEndian.PutUint32(lacking, count)
	return lacking, err
}

// inPlace finds the blocks that are where they were, as after most changes; it gives how
// many are not. First, since in a file that repeats itself rolling may go from one match to
// the next and miss the places of the blocks that it looks for.
func (a *assembly) inPlace() (lacking int) {
	buffer := make([]byte, a.sums.block)
	for each := range a.from {
		offset := int64(each) * int64(a.sums.block)
		if each < len(a.sums.strong) && a.length(each) == int64(a.sums.block) {
			n, _ := a.base.ReadAt(buffer, offset)
			whole := sha256.Sum256(buffer[:n])
			if n == len(buffer) && a.sums.strong[each] == [8]byte(whole[:8]) {
				a.from[each] = offset
				continue
			}
		}
		lacking++
	}
	return lacking
}

// known writes the blocks that the base has, up to the next one that must come.
func (a *assembly) known(to io.Writer) error {
	for ; a.next < len(a.from); a.next++ {
		if a.from[a.next] < 0 {
			a.left = a.length(a.next)
			return nil
		}
		section := io.NewSectionReader(a.base, a.from[a.next], int64(a.sums.block))
		if _, err := io.Copy(to, section); err != nil {
			return err
		}
	}
	return nil
}

// take writes what the client sends, and what is known behind it.
func (a *assembly) take(content []byte, to io.Writer) error {
	for len(content) > 0 {
		if a.next >= len(a.from) {
			return errMore
		}
		n := min(a.left, int64(len(content)))
		if _, err := to.Write(content[:n]); err != nil {
			return err
		}
		content = content[n:]
		if a.left -= n; a.left == 0 {
			a.next++
			if err := a.known(to); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *assembly) close() {
	if a.base != nil {
		_ = a.base.Close()
	}
}

package sync

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/adler32"
	"math/rand"
	"testing"
)

func summed(content []byte, block int) (found []byte) {
	for ; len(content) >= block; content = content[block:] {
		found = binary.BigEndian.AppendUint32(found, adler32.Checksum(content[:block]))
		whole := sha256.Sum256(content[:block])
		found = append(found, whole[:8]...)
	}
	return found
}

// What a file is told as, put together again with the blocks of the other, is the file.
func checkRoll(t *testing.T, file, base []byte, block int) (literals int) {
	t.Helper()
	s, err := parseSums(block, summed(base, block))
	if err != nil {
		t.Fatal(err)
	}
	var again []byte
	err = s.roll(bytes.NewReader(file), func(content []byte) error {
		again = append(again, content...)
		literals += len(content)
		return nil
	}, func(found []int32, offset int64) error {
		if offset != int64(len(again)) {
			t.Fatalf("a match at %d, after %d bytes", offset, len(again))
		}
		at := int(found[0]) * block
		again = append(again, base[at:at+block]...)
		return nil
	})
	if err != nil || !bytes.Equal(again, file) {
		t.Fatalf("%d bytes of %d: %v", len(again), len(file), err)
	}
	return literals
}

func TestRollFindsBlocksAtEveryOffset(t *testing.T) {
	const block = 1 << 10
	chance := rand.New(rand.NewSource(3))
	base := make([]byte, 5<<20)
	chance.Read(base)
	for _, cut := range []int{0, 1, 7, block - 1, block, 1<<20 - 3, 1<<20 + 5} {
		file := append(bytes.Repeat([]byte{1}, cut), base...)
		if literals := checkRoll(t, file, base, block); literals > cut+block {
			t.Errorf("%d bytes in front: %d literals", cut, literals)
		}
		if literals := checkRoll(t, base[cut:], base, block); literals > 2*block {
			t.Errorf("%d bytes less in front: %d literals", cut, literals)
		}
	}
	other := make([]byte, 3<<20)
	chance.Read(other)
	if literals := checkRoll(t, other, base, block); literals != len(other) {
		t.Errorf("%d literals of %d", literals, len(other))
	}
	checkRoll(t, nil, base, block)
	checkRoll(t, bytes.Repeat([]byte{255}, 3<<20), bytes.Repeat([]byte{255}, 1<<20), block)
}

func FuzzRoll(f *testing.F) {
	f.Add([]byte("some file"), []byte("some base"))
	f.Fuzz(func(t *testing.T, file, base []byte) {
		checkRoll(t, bytes.Repeat(file, 40), append(file, base...), 1<<10)
	})
}

func BenchmarkRollThroughNoise(b *testing.B) {
	base, file := make([]byte, 16<<20), make([]byte, 16<<20)
	rand.New(rand.NewSource(1)).Read(base)
	rand.New(rand.NewSource(2)).Read(file)
	s, _ := parseSums(16<<10, summed(base, 16<<10))
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		_ = s.roll(bytes.NewReader(file), func([]byte) error { return nil },
			func([]int32, int64) error { return nil })
	}
}

package sync

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
)

// packedAtMost bytes of frames are in one PACKED frame.
const packedAtMost = 4 << 20

// packAbove: what is gathered before it is packed.
const packAbove = 256 << 10

// unpacked gives the frames of a PACKED frame. Deflate, since both sides have it: Zstandard
// would pack better and faster, and is 0.3 MB more of an agent that is to stay below 3 MB.
func unpacked(payload []byte) ([]frame, error) {
	from, err := zlib.NewReader(bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(from, packedAtMost+1))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	if len(content) > packedAtMost {
		return nil, fmt.Errorf("more than %d bytes in one packed frame", packedAtMost)
	}
	var frames []frame
	for len(content) > 0 {
		if len(content) < 5 {
			return nil, errShort
		}
		size := binary.BigEndian.Uint32(content)
		if size < 1 || uint64(size) > uint64(len(content)-4) {
			return nil, errShort
		}
		frames = append(frames, frame{content[4], content[5 : 4+size]})
		content = content[4+size:]
	}
	return frames, nil
}

// packing gathers frames, and sends them packed where that makes them smaller.
type packing struct {
	gathered bytes.Buffer
	packed   bytes.Buffer
	zlib     *zlib.Writer
}

func (p *packing) flush(to *writing) error {
	if p.gathered.Len() == 0 {
		return nil
	}
	if p.zlib == nil {
		p.zlib, _ = zlib.NewWriterLevel(&p.packed, zlib.BestSpeed)
	}
	p.packed.Reset()
	p.zlib.Reset(&p.packed)
	_, _ = p.zlib.Write(p.gathered.Bytes())
	_ = p.zlib.Close()
	defer p.gathered.Reset()
	if p.packed.Len() > p.gathered.Len()*9/10 {
		_, err := to.to.Write(p.gathered.Bytes())
		return err
	}
	return to.now(framePacked, p.packed.Bytes())
}

// Package frame is what travels on a carrier: frames, and the proofs in them.
//
// The grammar is docs/protocol.md; tests/vectors/line-frames.json proves that
// this and the client's frames.py read and write the same bytes.
package frame

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version is the only version of the protocol so far.
const Version = 1

// Type is a frame's first byte.
type Type byte

// The frames of docs/protocol.md.
const (
	Greeting Type = 0x01
	Hello    Type = 0x02
	Welcome  Type = 0x03
	Gone     Type = 0x04
	Data     Type = 0x10
	Ack      Type = 0x11
	Ping     Type = 0x12
	Pong     Type = 0x13
	Close    Type = 0x14
)

// Reason tells in GONE why there is no such line (any more).
type Reason byte

// The reasons of GONE.
const (
	UnknownLine  Reason = 1
	Denied       Reason = 2
	WrongVersion Reason = 3
	OutOfRange   Reason = 4
	TooMany      Reason = 5
)

// Sizes, in bytes.
const (
	HeaderSize     = 4
	DataHeaderSize = HeaderSize + 8
	MaxPayload     = 1 << 20
	KeySize        = 32
	NonceSize      = 32
	LineIDSize     = 16
	MACSize        = sha256.Size
	greetingSize   = 1 + NonceSize
	helloSize      = 1 + LineIDSize + NonceSize + 8 + MACSize
	welcomeSize    = 8 + MACSize
)

// The three ways in which bytes are no frame. Each ends the carrier.
var (
	ErrTooLong     = errors.New("payload too long")
	ErrUnknownType = errors.New("unknown type")
	ErrWrongLength = errors.New("wrong length")
)

// Key proves both sides to each other; it is never sent.
type Key [KeySize]byte

// Nonce is fresh on each side of each carrier.
type Nonce [NonceSize]byte

// LineID names a line; the client chooses it.
type LineID [LineIDSize]byte

// MAC is an HMAC-SHA256.
type MAC [MACSize]byte

// Frame is any frame; which fields count follows from Type.
//
// One flat struct and not an interface, so that reading a frame allocates
// nothing. DATA's bytes are not in it: they are read with Reader.Body as they
// come, since waiting for all of 256 KiB would only add delay.
type Frame struct {
	Type     Type
	Version  byte
	Nonce    Nonce
	LineID   LineID
	Received uint64
	MAC      MAC
	Reason   Reason
	Text     string
	Offset   uint64
	Length   int
	Token    uint64
}

// Reader takes frames off a carrier.
type Reader struct {
	r    *bufio.Reader
	body int
	// GONE is the only long frame that is read whole; the rest fits here.
	head [helloSize]byte
}

// NewReader reads frames from r through a small buffer: long bodies bypass it.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 4096)}
}

// Next reads one frame; what is left of a DATA frame's body is skipped.
func (r *Reader) Next() (Frame, error) {
	if err := r.skipBody(); err != nil {
		return Frame{}, err
	}
	head := r.head[:HeaderSize]
	if _, err := io.ReadFull(r.r, head); err != nil {
		return Frame{}, err
	}
	frame := Frame{Type: Type(head[0])}
	length := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	if length > MaxPayload {
		return Frame{}, fmt.Errorf("%w: %d bytes in a frame of type 0x%02x", ErrTooLong, length, head[0])
	}
	fixed, more, known := shape(frame.Type)
	if !known {
		return Frame{}, fmt.Errorf("%w: 0x%02x", ErrUnknownType, head[0])
	}
	if length < fixed || (length > fixed) != more && frame.Type != Gone {
		return Frame{}, fmt.Errorf("%w: %d bytes in a frame of type 0x%02x", ErrWrongLength, length, head[0])
	}
	payload := r.head[:fixed]
	if _, err := io.ReadFull(r.r, payload); err != nil {
		return Frame{}, cutShort(err)
	}
	frame.fill(payload)
	switch rest := length - fixed; frame.Type {
	case Data:
		frame.Length, r.body = rest, rest
	case Gone:
		text := make([]byte, rest)
		if _, err := io.ReadFull(r.r, text); err != nil {
			return Frame{}, cutShort(err)
		}
		frame.Text = string(text)
	}
	return frame, nil
}

// Body reads what has come of the current DATA frame, at most len(p) bytes, and
// io.EOF when all of it was read.
func (r *Reader) Body(p []byte) (int, error) {
	if r.body == 0 {
		return 0, io.EOF
	}
	if len(p) > r.body {
		p = p[:r.body]
	}
	n, err := r.r.Read(p)
	r.body -= n
	if n > 0 {
		return n, nil
	}
	return 0, cutShort(err)
}

func (r *Reader) skipBody() error {
	for r.body > 0 {
		n, err := r.r.Discard(r.body)
		r.body -= n
		if err != nil {
			return cutShort(err)
		}
	}
	return nil
}

// cutShort tells an end in the middle of a frame from one between two.
func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// shape gives the size of a type's fixed part, and whether bytes follow it.
func shape(t Type) (fixed int, more, known bool) {
	switch t {
	case Greeting:
		return greetingSize, false, true
	case Hello:
		return helloSize, false, true
	case Welcome:
		return welcomeSize, false, true
	case Gone:
		return 1, true, true
	case Data:
		return 8, true, true
	case Ack, Ping, Pong:
		return 8, false, true
	case Close:
		return 0, false, true
	}
	return 0, false, false
}

func (f *Frame) fill(p []byte) {
	switch f.Type {
	case Greeting:
		f.Version = p[0]
		copy(f.Nonce[:], p[1:])
	case Hello:
		f.Version = p[0]
		copy(f.LineID[:], p[1:])
		copy(f.Nonce[:], p[17:])
		f.Received = binary.BigEndian.Uint64(p[49:])
		copy(f.MAC[:], p[57:])
	case Welcome:
		f.Received = binary.BigEndian.Uint64(p)
		copy(f.MAC[:], p[8:])
	case Gone:
		f.Reason = Reason(p[0])
	case Data:
		f.Offset = binary.BigEndian.Uint64(p)
	case Ack:
		f.Received = binary.BigEndian.Uint64(p)
	case Ping, Pong:
		f.Token = binary.BigEndian.Uint64(p)
	}
}

// Append writes the frame behind b; of DATA only what stands before its bytes,
// which the caller sends from where they are.
func (f *Frame) Append(b []byte) []byte {
	switch f.Type {
	case Greeting:
		b = append(header(b, f.Type, greetingSize), f.Version)
		return append(b, f.Nonce[:]...)
	case Hello:
		b = append(header(b, f.Type, helloSize), f.Version)
		b = append(append(b, f.LineID[:]...), f.Nonce[:]...)
		return append(binary.BigEndian.AppendUint64(b, f.Received), f.MAC[:]...)
	case Welcome:
		b = binary.BigEndian.AppendUint64(header(b, f.Type, welcomeSize), f.Received)
		return append(b, f.MAC[:]...)
	case Gone:
		b = append(header(b, f.Type, 1+len(f.Text)), byte(f.Reason))
		return append(b, f.Text...)
	case Data:
		return binary.BigEndian.AppendUint64(header(b, f.Type, 8+f.Length), f.Offset)
	case Ack:
		return binary.BigEndian.AppendUint64(header(b, f.Type, 8), f.Received)
	case Ping, Pong:
		return binary.BigEndian.AppendUint64(header(b, f.Type, 8), f.Token)
	default:
		return header(b, f.Type, 0)
	}
}

func header(b []byte, t Type, length int) []byte {
	return append(b, byte(t), byte(length>>16), byte(length>>8), byte(length))
}

// HelloMAC is the client's proof that it has the key.
func HelloMAC(key Key, agent, client Nonce, version byte, id LineID, received uint64) MAC {
	return sign(key, "towline hello", agent[:], client[:], []byte{version}, id[:], number(received))
}

// WelcomeMAC is the agent's.
func WelcomeMAC(key Key, client, agent Nonce, received uint64) MAC {
	return sign(key, "towline welcome", client[:], agent[:], number(received))
}

// Equal compares in constant time, so that a guess learns nothing from how long
// the refusal took.
func (m MAC) Equal(other MAC) bool { return hmac.Equal(m[:], other[:]) }

func sign(key Key, purpose string, parts ...[]byte) (mac MAC) {
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(purpose))
	for _, part := range parts {
		h.Write(part)
	}
	h.Sum(mac[:0])
	return mac
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

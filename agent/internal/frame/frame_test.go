package frame

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strconv"
	"testing"
	"testing/iotest"
)

type vectors struct {
	Frames []struct {
		Name  string
		Bytes string
		Frame map[string]any
	}
	Broken []struct{ Name, Bytes, Error string }
	Proofs []struct {
		Key, Agent, Client, Received, Hello, Welcome string
		Version                                      byte
		LineID                                       string `json:"line_id"`
	}
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	text, err := os.ReadFile("../../../tests/vectors/line-frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, text any) []byte {
	t.Helper()
	b, err := hex.DecodeString(text.(string))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var types = map[string]Type{
	"GREETING": Greeting, "HELLO": Hello, "WELCOME": Welcome, "GONE": Gone,
	"DATA": Data, "ACK": Ack, "PING": Ping, "PONG": Pong, "CLOSE": Close,
}

// expected is the frame of a vector, and DATA's bytes.
func expected(t *testing.T, fields map[string]any) (Frame, []byte) {
	var f Frame
	var body []byte
	number := func(v any) uint64 {
		n, err := strconv.ParseUint(v.(string), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, v := range fields {
		switch name {
		case "type":
			f.Type = types[v.(string)]
		case "version":
			f.Version = byte(v.(float64))
		case "reason":
			f.Reason = Reason(v.(float64))
		case "text":
			f.Text = v.(string)
		case "nonce":
			copy(f.Nonce[:], unhex(t, v))
		case "line_id":
			copy(f.LineID[:], unhex(t, v))
		case "mac":
			copy(f.MAC[:], unhex(t, v))
		case "received":
			f.Received = number(v)
		case "offset":
			f.Offset = number(v)
		case "token":
			f.Token = number(v)
		case "payload":
			body = unhex(t, v)
			f.Length = len(body)
		default:
			t.Fatalf("unknown field %q", name)
		}
	}
	return f, body
}

func readAll(r *Reader, length int) ([]byte, error) {
	body := make([]byte, 0, length)
	buffer := make([]byte, 3)
	for {
		n, err := r.Body(buffer)
		body = append(body, buffer[:n]...)
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return body, err
		}
	}
}

func TestVectors(t *testing.T) {
	for _, c := range readVectors(t).Frames {
		t.Run(c.Name, func(t *testing.T) {
			want, body := expected(t, c.Frame)
			wire := unhex(t, c.Bytes)
			if got := append(want.Append(nil), body...); !bytes.Equal(got, wire) {
				t.Errorf("written\n%x, not\n%x", got, wire)
			}
			// A byte at a time: a frame may be cut anywhere.
			r := NewReader(iotest.OneByteReader(bytes.NewReader(wire)))
			got, err := r.Next()
			if err != nil || got != want {
				t.Fatalf("read %+v, %v, not %+v", got, err, want)
			}
			if got.Type == Data {
				read, err := readAll(r, got.Length)
				if err != nil || !bytes.Equal(read, body) {
					t.Errorf("body %q, %v, not %q", read, err, body)
				}
			}
			if _, err := r.Next(); err != io.EOF {
				t.Errorf("after the frame: %v, not EOF", err)
			}
		})
	}
}

func TestBroken(t *testing.T) {
	kinds := map[string]error{"too long": ErrTooLong, "unknown type": ErrUnknownType, "wrong length": ErrWrongLength}
	for _, c := range readVectors(t).Broken {
		t.Run(c.Name, func(t *testing.T) {
			if _, err := NewReader(bytes.NewReader(unhex(t, c.Bytes))).Next(); !errors.Is(err, kinds[c.Error]) {
				t.Errorf("%v, not %q", err, c.Error)
			}
		})
	}
}

func TestProofs(t *testing.T) {
	for _, c := range readVectors(t).Proofs {
		var key Key
		var agent, client Nonce
		var id LineID
		copy(key[:], unhex(t, c.Key))
		copy(agent[:], unhex(t, c.Agent))
		copy(client[:], unhex(t, c.Client))
		copy(id[:], unhex(t, c.LineID))
		received, err := strconv.ParseUint(c.Received, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		hello := HelloMAC(key, agent, client, c.Version, id, received)
		if !bytes.Equal(hello[:], unhex(t, c.Hello)) {
			t.Errorf("HELLO's proof for %s", c.Received)
		}
		welcome := WelcomeMAC(key, client, agent, received)
		if !bytes.Equal(welcome[:], unhex(t, c.Welcome)) {
			t.Errorf("WELCOME's proof for %s", c.Received)
		}
		other := welcome
		other[31] ^= 1
		if welcome.Equal(other) || !welcome.Equal(welcome) {
			t.Error("Equal is wrong")
		}
	}
}

func TestAnEndInTheMiddleIsTold(t *testing.T) {
	for _, c := range readVectors(t).Frames {
		wire := unhex(t, c.Bytes)
		for cut := range len(wire) {
			r := NewReader(bytes.NewReader(wire[:cut]))
			f, err := r.Next()
			if err == nil && f.Type == Data {
				_, err = readAll(r, f.Length)
			}
			if cut == 0 && err != io.EOF || cut > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s cut after %d bytes: %v", c.Name, cut, err)
			}
		}
	}
}

// FuzzReader: whatever comes, the reader ends, and what it read it would write.
func FuzzReader(f *testing.F) {
	v := readVectors(f)
	for _, c := range v.Frames {
		f.Add(unhex(f, c.Bytes))
	}
	for _, c := range v.Broken {
		f.Add(unhex(f, c.Bytes))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := NewReader(bytes.NewReader(wire))
		var again []byte
		for {
			frame, err := r.Next()
			if err != nil {
				break
			}
			again = frame.Append(again)
			if frame.Type == Data {
				body, err := readAll(r, frame.Length)
				again = append(again, body...)
				if err != nil {
					break
				}
			}
		}
		if !bytes.HasPrefix(wire, again) {
			t.Errorf("written\n%x, not\n%x", again, wire)
		}
	})
}

package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

type echo struct{}

func (echo) Call(method string, params json.RawMessage) (any, error) {
	switch method {
	case "echo":
		return Params[map[string]any](params)
	case "break":
		return nil, errors.New("it broke")
	}
	return nil, &Error{UnknownMethod, "no method"}
}

type channel struct {
	io.Reader
	bytes.Buffer
}

func (c *channel) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func TestConversation(t *testing.T) {
	cases := []struct{ name, line, want string }{
		{"a result", `{"id":1,"method":"echo","params":{"a":2}}`, `{"id":1,"result":{"a":2}}`},
		{"an id that is text", `{"id":"x","method":"echo","params":{"a":2}}`, `{"id":"x","result":{"a":2}}`},
		{"no such method", `{"id":2,"method":"no"}`, `{"id":2,"error":{"code":"unknown_method","message":"no method"}}`},
		{"params of another shape", `{"id":3,"method":"echo","params":[1]}`, `"code":"bad_params"`},
		{"a failure", `{"id":4,"method":"break"}`, `{"id":4,"error":{"code":"failed","message":"it broke"}}`},
		{"no JSON", `hello?`, `{"id":null,"error":{"code":"bad_request"`},
		{"no object", `[1]`, `"code":"bad_request"`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out := &channel{Reader: strings.NewReader("\n" + c.line + "\n")}
			if err := Serve(out, echo{}, &Events{}); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); !strings.Contains(got, c.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("%s, not %s", got, c.want)
			}
		})
	}
}

func TestALineWithoutAnEndIsRefused(t *testing.T) {
	out := &channel{Reader: strings.NewReader(strings.Repeat("x", lineAtMost+1))}
	if err := Serve(out, echo{}, &Events{}); err == nil {
		t.Error("a line of over 1 MiB was taken")
	}
}

func TestEventsReachEveryChannelAndBlockNobody(t *testing.T) {
	events := &Events{}
	got := make(chan any)
	stop := events.subscribe(func(event any) error { got <- event; return nil })
	for n := range 3 * eventsWaiting {
		events.Emit(n)
	}
	last := 3*eventsWaiting - 1
	for event := range got {
		if event == last {
			break
		}
	}
	stop()
	events.Emit("to nobody")
}

// FuzzServe: whatever a client says, each line is answered by one line of JSON.
func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"id":1,"method":"echo","params":{"a":2}}` + "\n"))
	f.Add([]byte("{}\n[]\nnull\n\n\"x\""))
	f.Add([]byte(`{"id":{"a":[1e999]},"method":1}` + "\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		out := &channel{Reader: bytes.NewReader(said)}
		if Serve(out, echo{}, &Events{}) != nil {
			return
		}
		for line := range strings.Lines(out.String()) {
			var a struct {
				ID     json.RawMessage
				Result json.RawMessage
				Error  *Error
			}
			if err := json.Unmarshal([]byte(line), &a); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	})
}

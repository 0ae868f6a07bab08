// Package control is the subsystem `towline-control`: one JSON object a line, in
// both directions. docs/protocol.md lists the methods.
package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// lineAtMost bytes for one request: `route` with many addresses is the longest.
const lineAtMost = 1 << 20

// eventsWaiting for a client that does not read; then the oldest are dropped, since
// each tells a state that the next one tells anew.
const eventsWaiting = 64

// Error is a refusal that the client's code can tell apart.
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// The codes of errors.
const (
	BadRequest    = "bad_request"
	UnknownMethod = "unknown_method"
	BadParams     = "bad_params"
	Failed        = "failed"
)

// Methods answers requests: the result, as something that JSON can say.
type Methods interface {
	Call(method string, params json.RawMessage) (any, error)
}

type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

type answer struct {
	ID     json.RawMessage `json:"id"`
	Result any             `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Serve answers requests until the client's EOF. Events go out in between.
func Serve(channel io.ReadWriter, methods Methods, events *Events) error {
	out := &writer{to: channel}
	stop := events.subscribe(out.write)
	defer stop()
	lines := bufio.NewScanner(channel)
	lines.Buffer(make([]byte, 0, 1<<10), lineAtMost)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := out.write(respond(lines.Bytes(), methods)); err != nil {
			return fmt.Errorf("answer a request: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	return nil
}

func respond(line []byte, methods Methods) answer {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return answer{ID: json.RawMessage("null"), Error: &Error{BadRequest, err.Error()}}
	}
	if len(asked.ID) == 0 {
		asked.ID = json.RawMessage("null")
	}
	result, err := methods.Call(asked.Method, asked.Params)
	if err == nil {
		return answer{ID: asked.ID, Result: result}
	}
	var refusal *Error
	if !errors.As(err, &refusal) {
		refusal = &Error{Failed, err.Error()}
	}
	return answer{ID: asked.ID, Error: refusal}
}

// Params reads a method's params into a struct.
func Params[T any](raw json.RawMessage) (T, error) {
	var params T
	if len(raw) == 0 {
		return params, nil
	}
	if err := json.Unmarshal(raw, &params); err != nil {
		return params, &Error{BadParams, err.Error()}
	}
	return params, nil
}

type writer struct {
	mu sync.Mutex
	to io.Writer
}

func (w *writer) write(object any) error {
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.to.Write(append(text, '\n'))
	return err
}

// Events go to every control channel that is open.
type Events struct {
	mu      sync.Mutex
	next    int
	channel map[int]chan any
}

// Emit never blocks, so it may be called with any lock.
func (e *Events) Emit(event any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, waiting := range e.channel {
		for sent := false; !sent; {
			select {
			case waiting <- event:
				sent = true
			default:
				select {
				case <-waiting:
				default:
				}
			}
		}
	}
}

func (e *Events) subscribe(write func(any) error) (stop func()) {
	waiting := make(chan any, eventsWaiting)
	e.mu.Lock()
	if e.channel == nil {
		e.channel = map[int]chan any{}
	}
	id := e.next
	e.next++
	e.channel[id] = waiting
	e.mu.Unlock()
	go func() {
		for event := range waiting {
			if write(event) != nil {
				continue // the channel is gone; stop comes
			}
		}
	}()
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.channel, id)
		close(waiting)
	}
}

package kube

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	for _, c := range []struct {
		text string
		code int
		body string
		err  error
	}{
		{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}", nil},
		{"HTTP/1.0 409 Conflict\r\n\r\n{\"message\":\"moved\"}", 409, "{\"message\":\"moved\"}", nil},
		{"HTTP/1.0 200 OK\r\nContent-Length: 20\r\n\r\n{}", 0, "", io.ErrUnexpectedEOF},
		{"SSH-2.0-x\r\n\r\n", 0, "", errNotHTTP},
		{"HTTP/1.0 two OK\r\n\r\n", 0, "", errNotHTTP},
		{"HTTP/1.0 00 OK\r\n\r\n", 0, "", errNotHTTP},
		{"HTTP/1.0 -200 OK\r\n\r\n", 0, "", errNotHTTP},
		{"HTTP/1.0 200 OK\r\nContent-Le", 0, "", errNotHTTP},
		{"", 0, "", errNotHTTP},
	} {
		code, body, err := readAnswer(strings.NewReader(c.text))
		if code != c.code || string(body) != c.body || !errors.Is(err, c.err) {
			t.Errorf("%q: %d %q %v", c.text, code, body, err)
		}
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}")
	f.Fuzz(func(t *testing.T, text string) {
		code, body, err := readAnswer(strings.NewReader(text))
		if err == nil && code < 100 || err != nil && code != 0 || len(body) > len(text) {
			t.Errorf("%d %q %v", code, body, err)
		}
	})
}

func TestTheTokenIsInNoLineButItsOwn(t *testing.T) {
	request, err := head("PATCH", "/apis/x", "host", "t0ken", Object{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	text := string(request)
	if strings.Count(text, "t0ken") != 1 || !strings.Contains(text, "Content-Type: application/merge-patch+json\r\n") || !strings.HasSuffix(text, "Content-Length: 7\r\n\r\n{\"a\":1}") {
		t.Error(text)
	}
}

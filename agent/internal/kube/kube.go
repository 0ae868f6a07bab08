// Package kube asks the API server from inside a pod, with its service account.
//
// HTTP/1.0 by hand over crypto/tls: one request a connection, the body ends with it.
// The guard asks every few seconds, so a connection each time costs nothing that
// counts, and net/http would make the agent two fifths larger (7.3 MB instead of 5.1;
// with TLS alone it is 6.2).
package kube

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	// answersWithin is longer than a busy API server takes; the guard's own times
	// are minutes.
	answersWithin = 20 * time.Second
	// answerAtMost: a workload or a record has some 100 KiB.
	answerAtMost = 8 << 20
)

// Object is a Kubernetes object as JSON has it.
type Object = map[string]any

// Error is the API server's refusal.
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

// IsCode tells whether err is the API server's refusal with this code.
func IsCode(err error, code int) bool {
	var refused *Error
	return errors.As(err, &refused) && refused.Code == code
}

// Client asks in one namespace. Its methods may be called one at a time.
type Client struct {
	Address   string // host:port
	Namespace string
	TLS       *tls.Config
	// Token is read for each request: the kubelet renews it.
	Token func() (string, error)
}

// InCluster is the client that a pod's service account allows.
func InCluster() (*Client, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST and _PORT are not set")
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, errors.New("the cluster's authority is no certificate")
	}
	namespace, err := os.ReadFile(account + "namespace")
	if err != nil {
		return nil, fmt.Errorf("read the namespace: %w", err)
	}
	return &Client{
		Address:   net.JoinHostPort(host, port),
		Namespace: strings.TrimSpace(string(namespace)),
		TLS:       &tls.Config{RootCAs: pool, ServerName: host},
		Token: func() (string, error) {
			token, err := os.ReadFile(account + "token")
			return strings.TrimSpace(string(token)), err
		},
	}, nil
}

// groups of what the guard touches.
var groups = map[string]string{
	"configmaps": "api/v1", "secrets": "api/v1", "services": "api/v1",
	"deployments": "apis/apps/v1", "statefulsets": "apis/apps/v1",
	"leases": "apis/coordination.k8s.io/v1",
}

// Get reads an object.
func (c *Client) Get(ctx context.Context, resource, name string) (Object, error) {
	return c.ask(ctx, "GET", resource, name, "", nil)
}

// Patch merges into an object, as field manager `towline`. With a resourceVersion in
// its metadata it fails with 409 when the object has moved.
func (c *Client) Patch(ctx context.Context, resource, name string, patch Object) (Object, error) {
	return c.ask(ctx, "PATCH", resource, name, "?fieldManager=towline", patch)
}

// Delete deletes one object, and no other of its name; one that is gone is no error.
func (c *Client) Delete(ctx context.Context, resource, name, uid string) error {
	options := Object{"propagationPolicy": "Background"}
	if uid != "" {
		options["preconditions"] = Object{"uid": uid}
	}
	_, err := c.ask(ctx, "DELETE", resource, name, "", options)
	if IsCode(err, 404) {
		return nil
	}
	return err
}

func (c *Client) ask(ctx context.Context, method, resource, name, query string, body Object) (Object, error) {
	path := "/" + groups[resource] + "/namespaces/" + c.Namespace + "/" + resource + "/" + name + query
	code, answer, err := c.exchange(ctx, method, path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s %s: %w", method, resource, name, err)
	}
	if code >= 300 {
		var status struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(answer, &status)
		return nil, fmt.Errorf("%s %s %s: %w", method, resource, name, &Error{code, status.Message})
	}
	var found Object
	if err := json.Unmarshal(answer, &found); err != nil {
		return nil, fmt.Errorf("%s %s %s: %w", method, resource, name, err)
	}
	return found, nil
}

func (c *Client) exchange(ctx context.Context, method, path string, body Object) (int, []byte, error) {
	token, err := c.Token()
	if err != nil {
		return 0, nil, fmt.Errorf("read the token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	dialer := tls.Dialer{Config: c.TLS}
	conn, err := dialer.DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(answersWithin))
	request, err := head(method, path, c.TLS.ServerName, token, body)
	if err != nil {
		return 0, nil, err
	}
	if _, err := conn.Write(request); err != nil {
		return 0, nil, err
	}
	return readAnswer(conn)
}

func head(method, path, host, token string, body Object) ([]byte, error) {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s %s HTTP/1.0\r\nHost: %s\r\nAccept: application/json\r\nUser-Agent: towline-guard\r\n", method, path, host)
	fmt.Fprintf(&text, "Authorization: Bearer %s\r\n", token)
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
		kind := "application/json"
		if method == "PATCH" {
			kind = "application/merge-patch+json"
		}
		fmt.Fprintf(&text, "Content-Type: %s\r\n", kind)
	}
	fmt.Fprintf(&text, "Content-Length: %d\r\n\r\n", len(content))
	text.Write(content)
	return text.Bytes(), nil
}

var errNotHTTP = errors.New("not an answer of HTTP")

// readAnswer reads a status line, headers, and a body up to the connection's end.
func readAnswer(from io.Reader) (int, []byte, error) {
	reader := bufio.NewReader(io.LimitReader(from, answerAtMost))
	first, err := reader.ReadString('\n')
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errNotHTTP, err)
	}
	fields := strings.Fields(first)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") {
		return 0, nil, errNotHTTP
	}
	code, err := strconv.Atoi(fields[1])
	if err != nil || code < 100 || code > 999 {
		return 0, nil, errNotHTTP
	}
	length := -1
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return 0, nil, fmt.Errorf("%w: %w", errNotHTTP, err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "content-length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return 0, nil, errNotHTTP
			}
		}
	}
	body, err := io.ReadAll(reader)
	if err != nil {
		return 0, nil, err
	}
	if length >= 0 && len(body) < length {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return code, body, nil
}

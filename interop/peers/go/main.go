// The routes of afcgitest over Go's net/http/fcgi: a second, independent application for the tests.
//
// Usage: peer ADDR, where ADDR is HOST:PORT or unix:PATH. Only Go's standard library is used, so that it builds without a network.
//
// What differs from afcgitest: /env prints what net/http/fcgi lets through, in alphabetical order, and "aborted" in /stats counts
// failed writes, because that package tells a handler of a vanished client in no other way.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var connections, active, served, aborted int64

// countingListener keeps the number of open connections.
type countingListener struct{ net.Listener }

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	atomic.AddInt64(&connections, 1)
	return &countingConn{Conn: conn}, nil
}

type countingConn struct {
	net.Conn
	closed int32
}

func (c *countingConn) Close() error {
	if atomic.CompareAndSwapInt32(&c.closed, 0, 1) {
		atomic.AddInt64(&connections, -1)
	}
	return c.Conn.Close()
}

func number(r *http.Request, name string, otherwise int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil || n < 0 {
		return otherwise
	}
	return n
}

// pattern is byte i of every /bytes response.
func pattern(i int) byte { return byte(i % 251) }

// echo reads the whole body before it answers: nginx sends no more of it once it has passed the head of the response on.
func echo(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, err = w.Write(body)
	return err
}

func bytes(w http.ResponseWriter, r *http.Request) error {
	n := number(r, "n", 0)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	buffer := make([]byte, 32768)
	for sent := 0; sent < n; {
		size := len(buffer)
		if n-sent < size {
			size = n - sent
		}
		for i := 0; i < size; i++ {
			buffer[i] = pattern(sent + i)
		}
		if _, err := w.Write(buffer[:size]); err != nil {
			return err
		}
		sent += size
	}
	return nil
}

func env(w http.ResponseWriter, r *http.Request) error {
	lines := []string{
		"REQUEST_METHOD=" + r.Method,
		"REQUEST_URI=" + r.RequestURI,
		"QUERY_STRING=" + r.URL.RawQuery,
		"PATH_INFO=" + r.URL.Path,
	}
	for name, value := range fcgi.ProcessEnv(r) {
		if name != "PATH_INFO" && name != "QUERY_STRING" {
			lines = append(lines, name+"="+value)
		}
	}
	for name, values := range r.Header {
		cgi := "HTTP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		lines = append(lines, cgi+"="+strings.Join(values, ", "))
	}
	sort.Strings(lines)
	w.Header().Set("Content-Type", "text/plain")
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

func events(w http.ResponseWriter, r *http.Request) error {
	n, pause := number(r, "n", 10), time.Duration(number(r, "ms", 1000))*time.Millisecond
	w.Header().Set("Content-Type", "text/event-stream")
	for i := 0; i < n; i++ {
		if i > 0 {
			time.Sleep(pause)
		}
		if _, err := fmt.Fprintf(w, "data: %d\n\n", i); err != nil {
			return err
		}
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
	}
	return nil
}

func handle(w http.ResponseWriter, r *http.Request) error {
	switch r.URL.Path {
	case "/echo":
		return echo(w, r)
	case "/bytes":
		return bytes(w, r)
	case "/env":
		return env(w, r)
	case "/events":
		return events(w, r)
	case "/delay":
		time.Sleep(time.Duration(number(r, "ms", 0)) * time.Millisecond)
	case "/status":
		code := number(r, "code", 200)
		w.WriteHeader(code)
		if code != http.StatusNoContent && code != http.StatusNotModified {
			_, err := fmt.Fprintf(w, "%d\n", code)
			return err
		}
		return nil
	case "/stderr":
		// net/http/fcgi has no way to write a STDERR stream.
		fmt.Fprintln(os.Stderr, "written by /stderr")
	case "/stats":
		w.Header().Set("Content-Type", "application/json")
		_, err := fmt.Fprintf(w, `{"connections":%d,"active":%d,"served":%d,"aborted":%d,"refused":0}`+"\n",
			atomic.LoadInt64(&connections), atomic.LoadInt64(&active), atomic.LoadInt64(&served), atomic.LoadInt64(&aborted))
		return err
	}
	w.Header().Set("Content-Type", "text/plain")
	_, err := io.WriteString(w, "Hello world\n")
	return err
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: peer HOST:PORT | unix:PATH")
	}
	network, address := "tcp", os.Args[1]
	if strings.HasPrefix(address, "unix:") {
		network, address = "unix", strings.TrimPrefix(address, "unix:")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		log.Fatal(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-stop
		listener.Close()
		os.Exit(0)
	}()
	log.Fatal(fcgi.Serve(countingListener{listener}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		atomic.AddInt64(&active, 1)
		err := handle(w, r)
		atomic.AddInt64(&active, -1)
		if err != nil {
			atomic.AddInt64(&aborted, 1)
			return
		}
		atomic.AddInt64(&served, 1)
	})))
}

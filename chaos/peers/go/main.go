// An application of the chaos run over Go's net/http/fcgi, at many addresses: see chaos/src/block.rs for what it answers.
//
// Usage: chaos-go NAME=PATH…
package main

import (
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"strconv"
	"strings"
	"time"
)

func handler(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		number := func(name string) int {
			n, _ := strconv.Atoi(query.Get(name))
			return n
		}
		token, blocks := query.Get("t"), number("n")
		hash := fnv.New64a()
		length, err := io.Copy(hash, r.Body)
		if err != nil {
			return
		}
		received := fmt.Sprintf("%d %016x", length, hash.Sum64())
		time.Sleep(time.Duration(number("ms")) * time.Millisecond)
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("X-App", name)
		w.Header().Set("X-Token", token)
		w.Header().Set("X-Received", received)
		if number("l") != 0 {
			w.Header().Set("Content-Length", strconv.Itoa(64*blocks))
		}
		text := make([]byte, 0, 1<<16+64)
		pause := time.Duration(number("p")) * time.Millisecond
		for i := 0; i < blocks; i++ {
			line := fmt.Sprintf("%s %s %d", name, token, i)
			if i == 0 {
				line += " " + received
			}
			text = append(text, fmt.Sprintf("%-63s\n", line)...)
			middle := pause > 0 && i == blocks/2
			if middle || len(text) >= 1<<16 {
				if _, err := w.Write(text); err != nil {
					return
				}
				text = text[:0]
			}
			if middle {
				w.(http.Flusher).Flush()
				time.Sleep(pause)
			}
		}
		w.Write(text)
	}
}

func main() {
	failed := make(chan error)
	for _, argument := range os.Args[1:] {
		name, path, _ := strings.Cut(argument, "=")
		listener, err := net.Listen("unix", path)
		if err != nil {
			log.Fatal(err)
		}
		go func() { failed <- fcgi.Serve(listener, handler(name)) }()
	}
	log.Fatal(<-failed)
}

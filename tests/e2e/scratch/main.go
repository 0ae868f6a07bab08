// The whole of an image from scratch: answers HTTP with who it is, and what it was given.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "host: %s\nuid: %d\ngreeting: %s\n", host, os.Getuid(), os.Getenv("GREETING"))
		for _, path := range os.Args[1:] {
			content, err := os.ReadFile(path)
			fmt.Fprintf(w, "%s: %s %v\n", path, content, err)
		}
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}

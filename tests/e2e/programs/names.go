// Looks names up as a static program does, without any C library: names.go NAME PORT
package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	addresses, err := net.LookupHost(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	connection, err := net.DialTimeout("tcp", net.JoinHostPort(os.Args[1], os.Args[2]), 10*time.Second)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "GET /readyz HTTP/1.0\r\n\r\n")
	answer := make([]byte, 8)
	if _, err := connection.Read(answer); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(addresses[0], string(answer))
}

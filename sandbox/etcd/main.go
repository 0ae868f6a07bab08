// Command etcd is etcd's server, built from its module: Debian's 3.4 makes an
// API server of 1.34 answer "Too large resource version" on a quiet cluster.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }

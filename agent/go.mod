module towline.dev/agent

go 1.26.6

require golang.org/x/crypto v0.58.0

require (
	github.com/pkg/sftp v1.13.10
	golang.org/x/sys v0.49.0
)

require github.com/kr/fs v0.1.0 // indirect

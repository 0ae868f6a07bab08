module towline.dev/sandbox/node

go 1.26.0

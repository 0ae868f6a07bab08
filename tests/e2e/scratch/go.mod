module towline.dev/scratch

go 1.26

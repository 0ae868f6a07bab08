"""A session, from `up` to the end of `down`. `run` is the program's table of contents."""

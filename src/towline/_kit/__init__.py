"""Small pieces that know nothing of Towline: streams, tasks, paths, clocks."""

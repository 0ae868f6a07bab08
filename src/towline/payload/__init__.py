"""The agent as it goes into a pod: the built binaries, cut into pieces. [pure but for reading them]

What is built, and how, is `build.py`: a script that the package's own build runs.
"""

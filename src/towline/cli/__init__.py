"""The command line: one file per group of commands.

`main` is the one place that prints errors and sets exit codes. Commands import what
they need when they run: `towline --help` imports click and this.
"""

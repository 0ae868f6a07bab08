"""The takeover as data: what was observed, what will be done, and the way back. [pure]

`build` decides, `patch` makes the dev workload, `record` is what the cluster keeps.
Doing any of it is `cluster.apply`'s.
"""

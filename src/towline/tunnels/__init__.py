"""Ports between laptop and cluster: accept or be called, dial, pump, for each connection.

Nothing here knows of Kubernetes or of the process; it uses `transport` and sockets.
"""

"""The way to the Kubernetes API: credentials, one dialling function, requests, watches.

What the cluster's objects mean for a session is `plan`'s business; nothing here
decides anything. No other package opens a connection to the API server.
"""

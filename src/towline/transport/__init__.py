"""SSH over a line: the session's one connection, its tunnel channels, requests to the agent.

The only importer of asyncssh. Nobody above sees its classes.
"""

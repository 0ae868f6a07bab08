"""The line: a resumable byte stream over a succession of carriers.

Here live frames (what travels), resume (the two directions), redial (when to
dial), line (the asyncio part) and carrier (WebSocket and SPDY port-forwards).
Nothing here knows SSH, sessions or tunnels; frames, resume and redial do no I/O.
"""

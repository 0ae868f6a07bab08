"""The local command: started, watched and stopped, with all that comes of it.

Nothing here knows of clusters, ports to forward or what a user is shown.

    supervised(…)        run the command; nothing of it is left afterwards
    listening_ports(…)   which local ports it listens on, and who has a port
"""

from towline.process.ending import DEFAULT_LADDER, Ending, Rung
from towline.process.supervisor import Process, supervised

__all__ = ["DEFAULT_LADDER", "Ending", "Process", "Rung", "supervised"]

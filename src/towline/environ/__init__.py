"""What the local process gets of its container: the environment, later files and names.

`policy` is pure. Nothing here talks to the cluster: the container's environment
comes in as a value.
"""

from towline.environ.policy import LocalEnvironment, Origin, Policy, local_environment

__all__ = ["LocalEnvironment", "Origin", "Policy", "local_environment"]

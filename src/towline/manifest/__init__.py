"""The manifest: text → values that the rest of the program can rely on.

Everything here is pure but `files`, which reads. No cluster, no processes, no
awaiting; nothing above may parse YAML of its own.

    find(start)            the manifest for a folder
    load(path, environ=…)  a Manifest, or one ManifestError with a line a problem
    check_files(entry)     what an entry names on the laptop must be there
"""

from typing import TYPE_CHECKING, Any

from towline.manifest.model import (
    Command,
    Entry,
    EnvironmentOrder,
    ExternalVolume,
    Files,
    Forward,
    Handover,
    Hook,
    InitContainers,
    Lifecycle,
    Manifest,
    Metadata,
    Mode,
    Names,
    Original,
    PersistentVolume,
    Port,
    Probes,
    Reach,
    Resources,
    Reverse,
    SecretFile,
    Service,
    Settings,
    Sync,
    SyncFolder,
    Tree,
    Variable,
    Workload,
)
from towline.manifest.places import Place

if TYPE_CHECKING:
    from towline.manifest.files import check_files, find, load

__all__ = [
    "Command",
    "Entry",
    "EnvironmentOrder",
    "ExternalVolume",
    "Files",
    "Forward",
    "Handover",
    "Hook",
    "InitContainers",
    "Lifecycle",
    "Manifest",
    "Metadata",
    "Mode",
    "Names",
    "Original",
    "PersistentVolume",
    "Place",
    "Port",
    "Probes",
    "Reach",
    "Resources",
    "Reverse",
    "SecretFile",
    "Service",
    "Settings",
    "Sync",
    "SyncFolder",
    "Tree",
    "Variable",
    "Workload",
    "check_files",
    "find",
    "load",
]


def __getattr__(name: str) -> Any:
    # Reading brings PyYAML and the table of fields, 50 ms together; `status`, `down`
    # and the layers above need only the model.
    if name in ("check_files", "find", "load"):
        from towline.manifest import files

        return getattr(files, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

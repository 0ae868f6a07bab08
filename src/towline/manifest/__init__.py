"""The manifest: text → values that the rest of the program can rely on.

Everything here is pure but `files`, which reads. No cluster, no processes, no
awaiting; nothing above may parse YAML of its own.

    find(start)            the manifest for a folder
    load(path, environ=…)  a Manifest, or one ManifestError with a line a problem
    check_files(entry)     what an entry names on the laptop must be there
"""

from towline.manifest.files import check_files, find, load
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

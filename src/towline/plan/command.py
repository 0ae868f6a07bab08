"""What runs in the dev container in sync mode. [pure]"""

from __future__ import annotations

from towline._kit.objects import JsonObject
from towline.errors import ManifestError
from towline.manifest.model import Command, Entry, Workload


def sync_command(entry: Entry, container: JsonObject) -> Command | None:
    """The entry's command; with `args` alone the container's own `command` before them.

    None where the entry says nothing: then nothing is started, but for a service, which
    runs what it always runs.

    Raises:
        ManifestError: that command is the image's, which nobody knows here.
    """
    if entry.command is not None or (entry.args is None and not entry.is_service):
        return entry.command
    return own_command(entry, container, args=entry.args)


def own_command(entry: Workload, container: JsonObject, *, args: Command | None) -> Command:
    """The container's `command`, with its own arguments or others."""
    own = [str(word) for word in container.get("command") or []]
    if not own:
        # Only a registry, or the runtime on the node, can say what an image's ENTRYPOINT is.
        what = "args" if args is not None else "the entry"
        raise ManifestError(
            f"{entry.places.get('args', entry.place)}: {entry.name}: {what} would follow the "
            "image's own command, which is not known here",
            hint="write it as `command:`",
        )
    if args is None:
        return Command(argv=(*own, *(str(word) for word in container.get("args") or [])))
    words = args.argv if not args.is_shell else (str(args.shell),)
    return Command(argv=(*own, *words))

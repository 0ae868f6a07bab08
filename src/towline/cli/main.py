"""The `towline` program: finds the command, runs it, tells errors, sets the exit code."""

from __future__ import annotations

import importlib
import os
import sys

import click

from towline import __version__
from towline.errors import TowlineError

# Command → where it is and what it is for: `--help` imports none of them.
_COMMANDS = {
    "up": ("up", "Take a service into development and run it here."),
    "down": ("down", "End a session and give the cluster back."),
    "sync": ("sync", "Show the synced folders; go on after a halt."),
    "status": ("status", "Show the sessions: stage, ports, line."),
    "run": ("inside", "Run a command here with the session's environment."),
    "exec": ("inside", "Run a command in the dev container."),
    "ssh-config": ("ssh_config", "Print a Host entry for ssh, scp, sftp into the dev container."),
    "env": ("env", "Print the environment that the local process gets."),
    "logs": ("logs", "Show the local process's output, or the dev pod's."),
    "plan": ("plan", "Show what `up` would do to the cluster, and undo."),
    "validate": ("manifest", "Check the manifest."),
    "config": ("manifest", "Print the manifest with everything filled in."),
    "schema": ("manifest", "Print the manifest's JSON Schema."),
    "doctor": ("doctor", "Check what `up` needs, and say what to do."),
    "sandbox": ("sandbox", "Run a small Kubernetes of its own on this machine (Linux, root)."),
    "agent-image": ("agent_image", "Write the agent as an image (for `agent.image`)."),
    "completion": ("completion", "Print the completion script for a shell."),
    "version": ("version", "Print the versions of Towline and its agent."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        loaded = importlib.import_module(f"towline.cli.{module}")
        command: click.Command = getattr(loaded, _attribute(cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _attribute(name: str) -> str:
    # `exec` is a builtin's name, `config` and `env` are short ones: each module names its
    # command like the command, with a trailing underscore where Python needs one.
    return {"exec": "exec_"}.get(name, name.replace("-", "_"))


_EPILOG = """\b
Examples:
  towline up                  take the manifest's only service into development
  towline up frontend         … or the one named
  towline down                give the cluster back
  towline sandbox up          a small cluster to try it on

Exit codes: 0 done · 1 failed · 2 usage · 3 manifest · 4 cluster · 5 dev pod ·
6 port in use · 7 somebody else's session · 8 command · 9 connection lost ·
10 needs --yes · 11 put back by others. The command's own exit code passes
through `up`, `run`, `exec`.
"""


@click.command(
    cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="towline")
@click.option("--debug", is_flag=True, envvar="TOWLINE_DEBUG", help="Show tracebacks of errors.")
def towline(debug: bool) -> None:
    """Develop one service of an app that lives on Kubernetes, on your laptop."""
    click.get_current_context().obj = {"debug": debug}


def main() -> None:
    """The program. Ends the process with the documented exit codes."""
    debug = "--debug" in sys.argv[1:2] or bool(os.environ.get("TOWLINE_DEBUG"))
    try:
        code = towline.main(standalone_mode=False, prog_name="towline") or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except TowlineError as error:
        code = _tell(error, debug=debug)
    except BrokenPipeError:
        # The reader of our output went first (`towline … | head`): nothing to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except Exception as error:
        if debug:
            raise
        from towline.ui.view import printable

        name = type(error).__name__
        click.echo(f"towline: unexpected {name}: {printable(str(error))}", err=True)
        click.echo("  this is a bug; `towline --debug …` shows where", err=True)
        code = 1
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)


def _tell(error: TowlineError, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    from towline.errors import ManifestError
    from towline.ui.view import printable

    is_list = isinstance(error, ManifestError)
    for line in error.message.splitlines() or [""]:
        click.echo(printable(line if is_list else f"towline: {line}"), err=True)
    if error.hint:
        click.echo(f"  → {printable(error.hint)}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()

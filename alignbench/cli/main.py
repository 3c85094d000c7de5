"""The ``alignbench`` command: finds the subcommand's file, and turns errors into one sentence.

Nothing heavy is imported here; a subcommand's file is imported when it runs (or when its ``--help`` is asked
for), and it imports the rooms that it needs inside its function.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from alignbench import __version__
from alignbench.errors import AlignbenchError, nearest

# name → the line that `alignbench --help` shows; the file is alignbench/cli/NAME.py and holds `command`
COMMANDS = {
    "quickstart": "The whole story in minutes: base → SFT → RM → PPO, PPO-ptx → report.",
    "evidence": "The story over seeds: what holds, with intervals (≤ 1 h on two cores).",
    "train": "Train a policy or a reward model: sft, rm, ppo.",
    "compare": "Compare policies: win-rates, deltas, alignment tax, report.",
    "eval": "Run tasks on one policy.",
    "winrate": "Statistics on preferences that were already collected.",
    "tasks": "List, show, write and check tasks.",
    "doctor": "What is installed, which engine is used, and whether it computes right.",
    "report": "Build report.html again from a finished run.",
    "browse": "Serve the runs below a folder on loopback.",
}

EPILOG = """\b
Examples:
  alignbench quickstart
  alignbench compare runs/sft runs/ppo
  alignbench train rm model=runs/sft data=rankings.jsonl --out runs/rm
"""


class Commands(click.Group):
    """A group whose commands are imported only when one of them is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"alignbench.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{nearest(args[0], list(COMMANDS))}; see alignbench --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="alignbench")
def cli(debug: bool) -> None:
    """What did alignment gain, what did it cost, and am I sure?"""


def main(argv: list[str] | None = None) -> None:
    """Entry point. Status: 0 done; 1 the work failed; 2 the command, a config or a task file is wrong."""
    args = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    try:
        # standalone_mode=False returns what ctx.exit() was given instead of raising SystemExit
        sys.exit(cli.main(args=args, prog_name="alignbench", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(0)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except click.exceptions.Abort:
        _fail("stopped; what was finished is kept, run the same command again to go on", 130)
    except AlignbenchError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; what was finished is kept, run the same command again to go on", 130)
    except BrokenPipeError:
        # the reader of a pipe (head, less) went away; leave quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _fail(f"unexpected {type(error).__name__}: {error}; run again with --debug for the traceback", 1)


def _fail(message: str, status: int) -> None:
    print(f"alignbench: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()

"""The command line: ``python -m shared COMMAND``. The commands are in ``*_commands.py``.

Exit codes: 0 done, 1 it did not work, 2 wrong usage, 130 stopped with Ctrl-C. With ``--json``,
standard output carries JSON and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from shared.commands import (  # noqa: F401  they register with app
    app_command,
    deals_command,
    frontier_commands,
    label_command,
    lesson_commands,
    new_command,
    pricing_commands,
    product_commands,
    release_commands,
    serve_command,
    training_commands,
    watch_command,
)
from shared.commands.options import app

# click's own base of all "you typed it wrong" errors; typer carries a private copy of click.
UsageError = typer.BadParameter.__bases__[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error becomes one line, not a traceback."""
    try:
        code = app(arguments, prog_name="python -m shared", standalone_mode=False)
        if code == 130:  # typer turns Ctrl-C into this, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UsageError as error:
        error.show()
        return 2
    except (typer.Abort, KeyboardInterrupt):
        print(
            "\nStopped. What is done is kept: the same command goes on from there.", file=sys.stderr
        )
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("COURSE_DEBUG"):
            raise
        print(f"Error: {_explain(error)}", file=sys.stderr)
        return 1


def _explain(error: Exception) -> str:
    """Our own errors are written for the reader; any other needs its type and a way to more."""
    if isinstance(error, ValueError | OSError) or type(error).__module__.startswith("shared."):
        return str(error)
    return f"{type(error).__name__}: {error}   (--debug shows where)"


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Estimate what a product costs from its description: the course's command line."""
    if debug:
        os.environ["COURSE_DEBUG"] = "1"

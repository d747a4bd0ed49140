"""Make a command line, and run it: exit codes, and what is said of errors."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..console import STDOUT_NAME, open_closed_streams
from ..errors import InputError

# What the system says of a path that can be that of nothing, or that this user may not use, and what to do.
UNUSABLE = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "expected a path"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "let its owner allow it, or name another one"),
    errno.EROFS: "make it writable, or name another place (that of a run by storage_path)",
    errno.EISDIR: "expected a file; move the directory away",
    errno.ENOTDIR: "expected a directory; move the file away",
}
FULL = (errno.ENOSPC, errno.EDQUOT)
STOPPED = 130  # exit code of Typer after a KeyboardInterrupt


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"enclap-ensemble {__version__}")
        raise typer.Exit


def make_app(purpose: str) -> typer.Typer:
    """Return a command line called `enclap`, with `--version` and without commands."""
    made = typer.Typer(
        name="enclap",
        help=purpose,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

    @made.callback()
    def _options(
        show_version: Annotated[
            bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit")
        ] = False,
    ) -> None: ...

    return made


def run_app(command_line: typer.Typer, arguments: list[str] | None = None) -> None:
    """Run a command.

    Exit codes: 0 done; 1 failed while running; 2 the input or config cannot be used; 130 stopped by Ctrl-C.
    """
    open_closed_streams()
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch|audiotools|ray")  # of others' code
    given = sys.argv[1:] if arguments is None else arguments
    if "" in given:  # which would be the working directory where a path is expected
        before = f" after {given[given.index('') - 1]}" if given.index("") else ""
        print(f"error: an argument{before} is empty; is a variable not set?", file=sys.stderr)
        sys.exit(2)
    try:
        typer.main.get_command(command_line)(args=arguments, prog_name="enclap", standalone_mode=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as error:
        if error.code == STOPPED:
            print("stopped; the same command resumes", file=sys.stderr)
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename:
            print(f"error: {_file_of(error)}: {error.strerror}; {UNUSABLE[error.errno]}", file=sys.stderr)
            sys.exit(2)
        if os.environ.get("ENCLAP_TRACEBACK"):
            raise
        if isinstance(error, OSError) and error.errno in FULL and error.filename:
            print(f"error: {_full(error)}; make room, the same command resumes", file=sys.stderr)
        else:
            print(f"error: {error}\n(ENCLAP_TRACEBACK=1 shows where; the same command resumes)", file=sys.stderr)
        sys.exit(1)


def _file_of(error: OSError) -> str:
    """Return the file that an error of the system is about: of two, that which was to be made."""
    return str(error.filename2 or error.filename)


def _full(error: OSError) -> str:
    """Say which file is too much for its disk, and what is left there."""
    from ..files import room_left

    said = f"{_file_of(error)}: {os.strerror(error.errno or 0)}"
    return said if _file_of(error) == STDOUT_NAME else f"{said}; {room_left(Path(_file_of(error)))}"

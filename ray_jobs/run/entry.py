"""Run a command as `python -m ray_jobs.<command>`, the same as `enclap <command>`."""

from __future__ import annotations

import sys
from importlib import import_module


def run_command(name: str) -> None:
    """Run the command line with a command's name before the process's own arguments.

    The command line imports the commands, so it is found by name: they must not import it.
    """
    import_module("ray_jobs.cli").main([name, *sys.argv[1:]])

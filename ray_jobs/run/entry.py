"""Run a command as `python -m ray_jobs.<command>`, the same as `enclap <command>`."""

from __future__ import annotations

import sys
from importlib import import_module


def run_command(name: str) -> None:
    """Run a command with the arguments of this process.

    The command line imports the commands, so they must not import it; it is found by name.
    """
    import_module("ray_jobs.cli").main([name, *sys.argv[1:]])

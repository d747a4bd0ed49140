"""Print the data that a command was asked for to standard output, where programs read it."""

from __future__ import annotations

import os
import sys


def print_data(line: str) -> None:
    """Print a line as it is: no markup, no wrapping, tabs kept; the bytes of a file name that is not Unicode, too."""
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")
    sys.stdout.buffer.flush()

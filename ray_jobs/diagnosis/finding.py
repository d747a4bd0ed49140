"""Describe something that was looked for on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

REMEDY = re.compile(r" \(`([^`]+)` (?:brings|gets) it[^)]*\)")  # as messages about missing parts name it


@dataclass(frozen=True)
class Finding:
    """A part of this machine, or what a setting of an experiment asks for."""

    name: str
    purpose: str  # what it is for
    found: str  # its version or place; where it is missing, why
    is_there: bool
    command: str = ""  # gets it, where it is missing

    @classmethod
    def of(cls, name: str, purpose: str, found: str, missing: str, command: str = "") -> Finding:
        """Return what was found, or why it is missing.

        Args:
            missing: the message of the check that a job makes before it starts; empty where all is there. What gets the
                missing parts is taken from the message, unless a command is given.
        """
        if not missing:
            return cls(name, purpose, found, True)
        commands = " && ".join(dict.fromkeys(REMEDY.findall(missing)))  # each of them once, as one line for a shell
        return cls(name, purpose, REMEDY.sub("", missing), False, command or commands)

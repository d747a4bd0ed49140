"""Find, list and read the files of a corpus, with errors in plain words."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import CorpusError
from models.files import refuse_pointer

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_SEPARATORS = re.compile(r"[/\\]")


class AudioFolder:
    """An audio folder, listed once; a subfolder when the first name in it is asked for.

    So 400,000 names cost one listing instead of 400,000 calls to the file system.

    Raises:
        CorpusError: if the folder does not exist or may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listed: dict[str, set[str]] = {}
        self._by_form: dict[str, dict[str, str]] = {}  # by subfolder, names by their composed form (NFC)
        if not path.is_dir():
            raise CorpusError(f"{path}: no such folder; expected the audio files in it")

    def __contains__(self, name: str) -> bool:
        return not ("/" in name and leads_out(name)) and self._spelled(name) is not None

    def locate(self, name: str) -> str:
        """Return the path of a name in the folder, whether it exists or not."""
        if not name.isascii():
            name = self._spelled(name) or name
        # pathlib would take a quarter of the time of reading a corpus; only names with a folder need it.
        return str(self.path / name) if "/" in name else f"{self.path}/{name}"

    def _spelled(self, name: str) -> str | None:
        """Return a file's name as the disk has it, where an accent may be a character of its own; None without it."""
        subfolder, slash, last = name.rpartition("/")
        if last in self.files(subfolder):
            return name
        if name.isascii():
            return None
        for folder in (subfolder, *(unicodedata.normalize(form, subfolder) for form in ("NFC", "NFD"))):
            if folder not in self._by_form:
                self._by_form[folder] = {unicodedata.normalize("NFC", one): one for one in self.files(folder)}
            if found := self._by_form[folder].get(unicodedata.normalize("NFC", last)):
                return f"{folder}{slash}{found}"
        return None

    def files(self, subfolder: str = "") -> set[str]:
        """Return the names of the files directly in the folder, or in a folder below it; none if that is missing."""
        if subfolder not in self._listed:
            self._listed[subfolder] = _list(self.path / subfolder)
        return self._listed[subfolder]


def _list(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except PermissionError as error:
        raise CorpusError(f"{folder}: may not be read ({error.strerror}); expected the audio files in it") from error
    except (OSError, ValueError):  # absent, or a name that no folder can have: too long, or with a NUL
        return set()


def leads_out(name: str) -> bool:
    """Return True if a file name leads out of its folder, in the notation of any system.

    A colon alone is part of a name.
    """
    return bool(_ABSOLUTE.match(name)) or ".." in _SEPARATORS.split(name)


def find_one(what: str, candidates: Sequence[Path], remedy: str) -> Path:
    """Return the one of several places, where a corpus may keep something, that exists.

    Args:
        what: is looked for, in the singular, for the message.
        remedy: what the user should do, for the message.

    Raises:
        CorpusError: if none or more than one exists.
    """
    there = [path for path in dict.fromkeys(candidates) if path.exists()]
    if len(there) == 1:
        return there[0]
    places = ", ".join(map(str, there or candidates[1:]))
    if there:
        raise CorpusError(f"{there[0]}: found {len(there)} places of the {what}, expected one: {places}; {remedy}")
    also = f" (looked also for {places})" if places else ""
    raise CorpusError(f"{candidates[0]}: no such {what}{also}; {remedy}")


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file.

    Args:
        expected: what the file should hold, for the message.

    Raises:
        CorpusError: if the file is missing or is not JSON.
    """
    try:
        content = path.read_bytes()
        refuse_pointer(content, path, "JSON", CorpusError)
        return json.loads(content)
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file; expected {expected}") from None
    except CorpusError:
        raise
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path}: cannot be read as JSON ({error}); expected {expected}") from error

"""caption: caption audio files with an exported ensemble.

Example: enclap caption runs/demo/bundle recording.wav
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import check_seed
from ..audio_sources import Recording
from ..console import count, refuse_closed_output, say, show
from ..ensemble.checksums import read_sums
from ..errors import InputError
from ..files import is_device, stamp
from ..fingerprint import fingerprint
from ..long_audio import Windowing
from ..metrics.diversity import caption_diversity, collapse_warning
from ..submission import refuse_names, write_captions
from .audio_files import Reading, Sound, find_audio, read_sounds
from .formats import Entry, all_lines, check_format, rows, table
from .journal import Journal
from .loading import load_ensemble, windows_asked
from .options import Format, Loading
from .output import print_data, reserved, write_data

if TYPE_CHECKING:
    from ..ensemble.bundle import Ensemble
    from ..ensemble.captions import Caption


@dataclass(frozen=True)
class Options:
    """How captions are made and written.

    Attributes:
        format: of what is printed or written to `output`; when left out a table in a terminal, path and caption
            separated by a tab where standard output is piped, and JSON lines in a file.
        window_s, hop_s: caption windows of this length, that far apart, instead of the beginning of each file.
    """

    format: Format | None = None
    window_s: float | None = None
    hop_s: float | None = None
    batch_size: int = 16
    loading: Loading = field(default_factory=Loading)


def run(
    bundle: Path,
    paths: list[Path],
    output: Path | None,
    submission: Path | None,
    seed: int | None,
    options: Options = Options(),
) -> None:
    """Print a caption of each file, or its timeline, or write files; a run that was interrupted goes on.

    Args:
        paths: audio files, or directories of them.
        output: a file for what would be printed.
        submission: for a DCASE Task 6 file; nothing is printed then.
        seed: of the sampling; the bundle's when left out.

    Raises:
        AudioError: a path does not exist, or no file can be read.
        CheckpointError: the bundle cannot be loaded.
        InputError: an option, a file to be written, or standard output cannot be used.
        SubmissionError: names cannot be in a submission; or a file cannot be read or a caption is blank, which is told
            once `output` is written.
    """
    if not (output or submission):
        refuse_closed_output()
    files = find_audio(paths)
    pool = [path.name for path in files]
    if submission:
        refuse_names(submission, pool)
    check_seed(seed)
    windowing = windows_asked(bundle, options.window_s, options.hop_s)
    _check_options(options, output, submission, len(files))
    with reserved({"--output": output, "--submission": submission}, files):
        captions = _Captions(files, windowing, _journal(output or submission, bundle, seed, options))
        made = captions.made_by(load_ensemble(bundle, options.loading), seed, options.batch_size)
        if output or submission:
            entries = list(made)
            texts = [row.text for entry in entries for row in rows(entry)]
            if output:
                write_data(output, all_lines(options.format or Format.JSON, entries))
                say(f"caption: {count(len(texts), 'caption')} in {output}")
            if submission:
                write_captions(submission, [Path(entry["path"]).name for entry in entries], texts, pool)
                say(f"caption: {count(len(texts), 'caption')} for Task 6 in {submission}")
        else:
            terminal = Format.TABLE if sys.stdout.isatty() else Format.TSV
            texts = _print(made, options.format or terminal)
        captions.remove_journal()
    if texts and (warning := collapse_warning(caption_diversity(texts))):
        say(f"caption: {warning}", style="yellow")


def _check_options(options: Options, output: Path | None, submission: Path | None, files: int) -> None:
    """Raise InputError for options that contradict each other."""
    timed = options.window_s is not None
    if submission and timed:
        raise InputError("--submission takes one caption a file; leave out --window, or --submission")
    if submission and options.format and not output:
        raise InputError(
            f"--format {options.format} is for --output or what is printed, and --submission prints nothing"
        )
    if options.format is Format.TABLE and output:
        raise InputError("--format table is for people to read in a terminal; choose another one for --output")
    if options.format:
        check_format(options.format, files, timed)


def _print(entries: Iterator[Entry], wanted: Format) -> list[str]:
    """Print entries as they are made, a table when they are done or interrupted; return the captions."""
    texts: list[str] = []
    kept: list[Entry] = []
    first = True
    try:
        for entry in entries:
            texts += [row.text for row in rows(entry)]
            if wanted is Format.TABLE:
                kept.append(entry)
            else:
                for line in all_lines(wanted, [entry], first):
                    print_data(line)
            first = False
    finally:
        if kept:
            show(table(kept))
    return texts


def _journal(target: Path | None, bundle: Path, seed: int | None, options: Options) -> Journal | None:
    """Return the journal beside the file to write; another bundle or seed, or other options, have another one."""
    if target is None or is_device(target):
        return None
    others = (options.window_s, options.hop_s, options.loading.dtype, options.loading.int8)
    made_by = fingerprint(read_sums(bundle), seed, *(others if any(others) else ()))
    return Journal(target.with_name(f".{target.name}.{made_by}.partial"), _is_caption)


def _is_caption(value: Any) -> bool:
    """Return whether a value that a journal holds is what `_Captions` keeps there of a file, or of a window."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return False
    times = ("score",) if "path" in value else ("score", "start_s", "end_s")
    whose = isinstance(value.get("path", ""), str) and isinstance(value.get("candidates"), list)
    return whose and all(isinstance(value.get(name), int | float) for name in times)


class _Captions:
    """Captions files, or their windows, but those that a journal has from a run that was interrupted."""

    def __init__(self, files: list[Path], windowing: Windowing | None, journal: Journal | None) -> None:
        self._files, self._windowing, self._journal = files, windowing, journal
        self._keys = {path: f"{path.absolute()} {stamp(path)}" for path in files}
        self._found: dict[Path, list[Entry]] = {}

    def made_by(self, ensemble: Ensemble, seed: int | None, batch_size: int) -> Iterator[Entry]:
        """Yield an entry of each file that can be read: as they are made, or where there is a journal at the end."""
        reading = Reading(batch_size, self._windowing, captioning=True, done=self._is_known)
        for heard in read_sounds(ensemble, self._files, reading):
            made = ensemble.caption_clips([one.clip for one in heard], seed)
            for one, caption in zip(heard, made, strict=True):
                self._add(one.sound, caption)
            if not self._journal:
                yield from self._finished(heard[-1].sound.path if self._windowing else None)
        yield from self._finished()

    def remove_journal(self) -> None:
        """Forget what was captioned, once it is written."""
        if self._journal:
            self._journal.remove()

    def _key(self, sound: Sound) -> str:
        return self._keys[sound.path] + ("" if sound.start_s is None else f" {sound.start_s!r}")

    def _is_known(self, sound: Sound) -> bool:
        known = self._journal.done.get(self._key(sound)) if self._journal else None
        if known:
            self._found.setdefault(sound.path, []).append(known)
        return known is not None

    def _add(self, sound: Sound, caption: Caption) -> None:
        times = {"path": str(sound.path)} if sound.start_s is None else {"start_s": sound.start_s, "end_s": sound.end_s}
        entry: Entry = {**times, **asdict(caption)}
        self._found.setdefault(sound.path, []).append(entry)
        if self._journal:
            self._journal.add(self._key(sound), entry)

    def _finished(self, last: Path | None = None) -> Iterator[Entry]:
        """Yield, in the order of the files, the entries of those before `last`, and forget them."""
        for path in self._files:
            if path == last:
                break
            if found := self._found.pop(path, None):
                yield found[0] if self._windowing is None else _timeline(path, found)


def _timeline(path: Path, segments: list[Entry]) -> Entry:
    duration_s = Recording.of(path, "").duration_s()
    return {"path": str(path), "duration_s": duration_s, "segments": sorted(segments, key=lambda one: one["start_s"])}

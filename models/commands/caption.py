"""caption: caption audio files with an exported ensemble.

Example: enclap caption runs/demo/bundle recording.wav
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..console import say
from ..ensemble.bundle import Ensemble
from ..ensemble.checksums import read_sums
from ..files import stamp, write_lines
from ..fingerprint import fingerprint
from ..metrics.diversity import caption_diversity, collapse_warning
from ..submission import one_line, refuse_twins, write_captions
from .audio_files import find_audio, read_in_batches
from .journal import Journal
from .output import print_data


def run(bundle: Path, paths: list[Path], output: Path | None, submission: Path | None, seed: int | None) -> None:
    """Print path and caption of each file, separated by a tab, or write files; a run that was interrupted goes on.

    Args:
        paths: audio files, or directories of them.
        output: for one JSON object a line with all candidates and scores; nothing is printed then.
        submission: for a DCASE Task 6 file; nothing is printed then.
        seed: of the sampling; the bundle's when left out.

    Raises:
        AudioError: a path does not exist, or no file can be read.
        CheckpointError: the bundle cannot be loaded.
        SubmissionError: a file cannot be read, two have one name, or a caption is blank; `output` is written before.
    """
    files = find_audio(paths)
    pool = [path.name for path in files]
    if submission:
        refuse_twins(submission, pool)
    keys = {path: f"{path.absolute()} {stamp(path)}" for path in files}
    ensemble = Ensemble.load(bundle)
    target = output or submission
    journal = _journal(target, bundle, seed) if target else None
    captioned: dict[str, Any] = journal.done if journal else {}
    todo = [path for path in files if keys[path] not in captioned]
    before = len(files) - len(todo)
    if before:
        say(f"caption: {before} of {len(files)} files have captions from a run that was interrupted")
    for path, line in _captions(ensemble, todo, seed, before):
        if journal:
            journal.add(keys[path], line)
        else:
            captioned[keys[path]] = line
            print_data(f"{path}\t{one_line(line['text'])}")
    lines = [captioned[keys[path]] for path in files if keys[path] in captioned]
    texts = [line["text"] for line in lines]
    if output:
        write_lines(output, lines)
        say(f"caption: {len(lines)} captions in {output}")
    if submission:
        write_captions(submission, [Path(line["path"]).name for line in lines], texts, pool)
        say(f"caption: {len(lines)} captions for Task 6 in {submission}")
    if journal:
        journal.remove()
    if texts and (warning := collapse_warning(caption_diversity(texts))):
        say(f"caption: {warning}", style="yellow")


def _captions(
    ensemble: Ensemble, paths: list[Path], seed: int | None, before: int
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each file that can be read, with its line of `--output`."""
    for readable, clips in read_in_batches(ensemble, paths, before, captioning=True):
        for path, caption in zip(readable, ensemble.caption_clips(clips, seed), strict=True):
            yield path, {"path": str(path), **asdict(caption)}


def _journal(target: Path, bundle: Path, seed: int | None) -> Journal:
    """Return the journal beside the file to write; another bundle or seed has another one."""
    made_by = fingerprint(read_sums(bundle), seed)
    return Journal(target.with_name(f".{target.name}.{made_by}.partial"))

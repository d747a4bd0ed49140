"""caption: audio files to captions, with an exported ensemble.

Example: enclap caption runs/demo/bundle recording.wav
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from models.collapse import caption_diversity, collapse_warning
from models.ensemble import Ensemble
from models.submission import one_line, refuse_twins, write_captions
from ray_jobs.audio_files import find_audio, read_in_batches
from ray_jobs.console import console, say


def run(bundle: Path, paths: list[Path], output: Path | None, submission: Path | None, seed: int | None) -> None:
    """Print a caption a file; or write one JSON object a file with all candidates and scores, a Task 6 submission, or
    both.

    Raises:
        SubmissionError: if a file cannot be read, two have one name, or a caption is blank; `output` is written before.
    """
    files = find_audio(paths)
    pool = [path.name for path in files]
    if submission:
        refuse_twins(submission, pool)
    ensemble = Ensemble.load(bundle)
    lines, texts, names = [], [], []
    for readable, clips in read_in_batches(ensemble, files):
        for path, caption in zip(readable, ensemble.caption_clips(clips, seed), strict=True):
            texts.append(caption.text)
            names.append(path.name)
            if output:
                lines.append(json.dumps({"path": str(path), **asdict(caption)}, ensure_ascii=False))
            elif not submission:
                console.print(f"{path}\t{one_line(caption.text)}", markup=False)
    if output:
        partial = output.with_name(f".{output.name}.partial")
        partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        partial.replace(output)
        say(f"caption: {len(lines)} captions in {output}")
    if submission:
        write_captions(submission, names, texts, pool)
        say(f"caption: {len(texts)} captions for Task 6 in {submission}")
    if texts and (warning := collapse_warning(caption_diversity(texts))):
        print(f"caption: {warning}", file=sys.stderr)


if __name__ == "__main__":
    from ray_jobs.cli import main

    main(["caption", *sys.argv[1:]])

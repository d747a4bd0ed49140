"""evaluate: captioning and retrieval values of an exported ensemble on any corpus with Clotho's columns.

Example: enclap evaluate runs/demo/bundle data/soundscapes-demo test
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from corpora.folder import read_folder
from corpora.table import CorpusError
from models.ensemble import Ensemble
from models.files import write_json
from models.metrics import caption_values
from models.retrieval_metrics import retrieval_values
from ray_jobs.audio_files import read_in_batches
from ray_jobs.console import console, say
from ray_jobs.run_directory import commit, package_versions


def run(bundle: Path, root: Path, split: str, output: Path | None) -> None:
    """Caption every clip, rank all clips for every caption, and print the values."""
    table, unusable = read_folder(root.resolve(), split)
    for row in unusable.itertuples():
        say(f"left out: {row.clip_id}: {row.reason}", style="yellow")
    if table.empty:
        raise CorpusError(f"{root}/{split}: no usable clip")
    captions_of = dict(zip(table["path"], table["captions"], strict=True))
    ensemble = Ensemble.load(bundle)
    predicted: list[str] = []
    references: list[list[str]] = []
    for readable, clips in read_in_batches(ensemble, [Path(path) for path in table["path"]]):
        ensemble.index_clips(readable, clips)
        predicted += [caption.text for caption in ensemble.caption_clips(clips)]
        references += [captions_of[str(path)] for path in readable]
    captioning = caption_values(predicted, references)
    target = np.repeat(np.arange(len(references)), [len(clip) for clip in references])
    queries = [caption for clip in references for caption in clip]
    retrieval = retrieval_values(ensemble.similarity(queries), target)
    values = {
        "corpus": str(root),
        "split": split,
        "clips": len(references),
        "captioning": captioning.corpus,
        "captioning_details": {"preprocessing": captioning.preprocessing, "absent": captioning.absent},
        "retrieval": retrieval.corpus,
        "seed": ensemble.manifest.seed,
        "commit": commit(),
        "bundle_commit": ensemble.manifest.provenance["commit"],
        "packages": package_versions(),
    }
    for name, value in {**captioning.corpus, **retrieval.corpus}.items():
        console.print(f"{name:12s} {value:.4f}")
    for name, reason in captioning.absent.items():
        say(f"{name}: not computed: {reason}", style="dim")
    if output:
        write_json(output, values)


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["evaluate", *sys.argv[1:]])

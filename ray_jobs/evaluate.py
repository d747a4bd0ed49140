"""evaluate: captioning and retrieval values of an exported ensemble on any corpus with Clotho's columns.

Example: enclap evaluate runs/demo/bundle data/soundscapes-demo test
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from corpora.folder import read_folder
from corpora.table import CorpusError
from models.ensemble import Ensemble
from models.files import write_frame, write_json
from models.metrics import best_preprocessing, caption_values
from models.retrieval_metrics import retrieval_values
from ray_jobs.audio_files import read_in_batches
from ray_jobs.console import console, say
from ray_jobs.run_directory import commit, package_versions


def run(bundle: Path, root: Path, split: str, output: Path | None) -> None:
    """Caption every clip, rank all clips for every caption, and print the values.

    With `output`, the values are written there as JSON, and those of single clips beside it as Parquet.
    """
    table, unusable = read_folder(root.resolve(), split)
    for row in unusable.itertuples():
        say(f"left out: {row.clip_id}: {row.reason}", style="yellow")
    if table.empty:
        raise CorpusError(f"{root}/{split}: no usable clip")
    of_path = table.set_index("path")
    ensemble = Ensemble.load(bundle)
    predicted: list[str] = []
    found: list[str] = []
    for readable, clips in read_in_batches(ensemble, [Path(path) for path in table["path"]]):
        ensemble.index_clips(readable, clips)
        predicted += [caption.text for caption in ensemble.caption_clips(clips)]
        found += map(str, readable)
    references = of_path.loc[found, "captions"].tolist()
    captioning = caption_values(predicted, references, preprocessing=best_preprocessing())
    target = np.repeat(np.arange(len(references)), [len(clip) for clip in references])
    queries = [caption for clip in references for caption in clip]
    retrieval = retrieval_values(ensemble.similarity(queries), target)
    values = {
        "corpus": str(root),
        "split": split,
        "clips": len(references),
        "captioning": captioning.corpus,
        "captioning_details": captioning.details,
        "retrieval": retrieval.corpus,
        "seed": ensemble.manifest.seed,
        "commit": commit(),
        "bundle_commit": ensemble.manifest.provenance["commit"],
        "packages": package_versions(),
    }
    for name, value in {**captioning.corpus, **retrieval.corpus}.items():
        console.print(f"{name:12s} {value:.4f}")
    for line in captioning.absences:
        say(f"not computed: {line}", style="dim")
    if output:
        write_json(output, values)
        clip_ids = of_path.loc[found, "clip_id"].tolist()
        of_clips = pd.DataFrame({"clip_id": clip_ids, "caption": predicted}).join(captioning.per_clip)
        write_frame(output.with_suffix(".parquet"), of_clips)
        say(f"evaluate: {output} and, clip by clip, {output.with_suffix('.parquet')}")


if __name__ == "__main__":
    import sys

    from ray_jobs.cli import main

    main(["evaluate", *sys.argv[1:]])

"""caption-collection: caption all audio of folders and buckets on a cluster, with Ray Data.

Example: enclap caption-collection /shared/bundle s3://bucket/sounds --output s3://bucket/captions
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import pyarrow as pa

from models.console import say
from models.ensemble.bundle import Ensemble
from models.ensemble.clip import Clip
from ray_jobs.inference.batch import Job, compute
from ray_jobs.inference.collection import Collection
from ray_jobs.run.entry import run_command


def run(collection: Collection, seed: int | None = None) -> None:
    """Write the captions of all files, or of their windows, as Parquet parts; a run that was interrupted goes on.

    Args:
        seed: of the sampling; the bundle's when left out.

    Raises:
        AudioError, CheckpointError, InputError: see `find_files` and `compute`.
    """
    output = compute(caption_job(seed), collection, collection.files)
    say(f"caption-collection: {output.rows()} captions in {collection.output}/parts")


def caption_job(seed: int | None) -> Job:
    """Return the job, whose rows are as `enclap caption --output` has them."""
    return Job("caption-collection", partial(_rows, seed=seed), captioning=True, seed=seed)


def _rows(ensemble: Ensemble, clips: Sequence[Clip], seed: int | None) -> pa.Table:
    return pa.Table.from_pylist([asdict(caption) for caption in ensemble.caption_clips(clips, seed)])


if __name__ == "__main__":
    run_command("caption-collection")

"""Cost of a trial of the sampling search apart from its candidates, at the demo's size.

    python benchmarks/sampling_search.py [--trials 14] [--clips 100] [--candidates 10]

`sampling_overhead`: the share of a trial's time in which the members neither draw nor score a candidate: metrics of the
candidates, the inner search of weights, files, Ray Tune with its searcher and scheduler. A trial's time is from its
start to the start of the next one in the same actor; the first trial of each actor loads the members and is left out,
as in the search's own best.json. The baseline is a bound of 0.15.

The members are those of experiments/demo.yaml with random weights, over random codes and log-mels of 5 to 10 s. With
random weights no caption ends, so captions are cut at 20 tokens, about the length that trained captioners produce.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import ray
import torch
from claims import claim, parser, show

from corpora.soundscapes.grammar import describe
from corpora.soundscapes.sampling import sample_scenes
from models.captioner.model import Captioner
from models.fluency.detector import FluencyDetector
from models.retriever.model import Retriever
from models.settings import (
    CaptionerConfig,
    FluencyDetectorConfig,
    RetrieverConfig,
)
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import CaptionerMember, RetrieverMember
from ray_jobs.features.files import write_shard
from ray_jobs.run.directory import RunDirectory, mark_done
from ray_jobs.tuning.candidate_store import validation_clip_ids, validation_directory
from ray_jobs.tuning.sampling import search_sampling

DEMO = Path(__file__).parents[1] / "experiments" / "demo.yaml"
CODEBOOKS, ENTRIES, CODES_A_SECOND = 8, 256, 25
LARGEST_OVERHEAD = 0.15


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=14)
    arguments.add_argument("--clips", type=int, default=100)
    arguments.add_argument("--candidates", type=int, default=10)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as storage:
        experiment = load_experiment(
            DEMO,
            [
                f"storage_path={storage}",
                f"search.trials={options.trials}",
                "sampling.max_tokens=20",
                f"search.clips={options.clips}",
                f"sampling.candidates={options.candidates}",
            ],
        )
        write_run(experiment, options.clips)
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        directory = validation_directory(experiment)
        outcome = search_sampling(experiment, directory, validation_clip_ids(directory, experiment))
        ray.shutdown()
    best, trials = outcome.best, outcome.frames["trials"]
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        print(trials.sort_values(["pid", "started"]).drop(columns=["cider_d", "in_sample"]).to_string(index=False))
    print(f"{len(trials)} trials in {trials['pid'].nunique()} processes, {best.elapsed_s:.1f} s")
    assert best.overhead is not None, "too few trials in each process to measure what they cost beside generating"
    show({"sampling_overhead": claim(best.overhead, LARGEST_OVERHEAD, 1.0, "of a trial", less=True)})


def write_run(experiment: Experiment, clips: int) -> None:
    """Write validation features and untrained members to where the search looks for them."""
    directory, rng = RunDirectory(experiment), np.random.default_rng(0)
    scenes = sample_scenes({"train": 400, "validation": clips}, seed=0)
    rows = []
    for number, scene in enumerate(scenes["validation"]):
        seconds = float(rng.uniform(5, 10))
        log_mel = experiment.features.log_mel
        frames = int(seconds * log_mel.sample_rate / log_mel.hop_length)
        rows.append(
            {
                "clip_id": f"clip-{number:05d}",
                "path": f"clip-{number:05d}.flac",
                "freesound_id": "",
                "youtube_id": "",
                "audio_sha256": "",
                "duration_s": seconds,
                "captions": describe(scene),
                "codes": rng.integers(0, ENTRIES, (int(seconds * CODES_A_SECOND), CODEBOOKS)).astype(np.int16),
                "log_mel": rng.normal(-40, 15, (frames, log_mel.n_mels)).astype(np.float16),
            }
        )
    shard = directory.features(experiment.target_corpus, "validation") / "00000.arrow"
    metadata = {"codec": {"codebook_size": ENTRIES}, "quarantine": []}
    write_shard(shard, rows, metadata, CODEBOOKS, experiment.features.log_mel.n_mels)
    torch.manual_seed(0)
    captions = [caption for scene in scenes["train"] for caption in describe(scene)]
    for name in experiment.members:
        untrained(experiment, name, captions).save(directory.member(name))
        mark_done(directory.member(name), directory.member_inputs(name))


def untrained(experiment: Experiment, name: str, captions: list[str]) -> Retriever | Captioner | FluencyDetector:
    """Return a member with random weights and a tokenizer of its own."""
    member = experiment.members[name]
    if isinstance(member, RetrieverMember):
        return Retriever.create(member.convert(RetrieverConfig, log_mel=experiment.features.log_mel), captions)
    if isinstance(member, CaptionerMember):
        joint = [experiment.members[retriever] for retriever in member.retrievers()]
        width = sum(retriever.joint_dim for retriever in joint if isinstance(retriever, RetrieverMember))
        shapes = {"codebooks": CODEBOOKS, "codebook_size": ENTRIES, "audio_embedding_dim": width}
        return Captioner.create(member.convert(CaptionerConfig, **shapes), captions)
    return FluencyDetector.create(member.convert(FluencyDetectorConfig), captions)


if __name__ == "__main__":
    main()

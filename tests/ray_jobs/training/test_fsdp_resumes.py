"""Two workers of Ray Train with half of a captioner each: one is killed, and training ends as if it had not been."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest
import ray
import yaml

from models.retriever.model import Retriever
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.embeddings import write_embeddings
from ray_jobs.features.files import write_shard
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run.directory import RunDirectory
from ray_jobs.training.member_job import MemberJob

from .killed_worker import RESOURCES, assert_trained_alike, train

CAPTIONER, RETRIEVER = "captioner", "retriever"
STEPS = 4  # an epoch
SIZES = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 160,
}  # fmt: skip


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Embedder:
    """Stands in for a trained retriever: 8 numbers of each clip."""

    waveform_rate = None

    def audio_embeddings(self, log_mels: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.full(8, float(mel.mean()), np.float32) for mel in log_mels])


def captioner_job(folder: Path) -> MemberJob:
    """The training, with all that it reads."""
    training = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "parallel": "fsdp"}
    captioner = {"kind": "captioner", "audio_embedding": RETRIEVER, "language_model": "random:bart", "sizes": SIZES,
                 "tokenizer": "wordpiece", "vocab_size": 120, "training": training, "resources": RESOURCES}  # fmt: skip
    retriever = {"kind": "retriever", "training": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}}
    corpus = {"kind": "folder", "root": str(folder / "audio"), "splits": ["train", "validation", "test"]}
    raw = {"name": "small", "storage_path": str(folder), "corpora": {"sounds": corpus}, "target_corpus": "sounds",
           "members": {RETRIEVER: retriever, CAPTIONER: captioner}}  # fmt: skip
    folder.mkdir()
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    experiment = load_experiment(path)
    directory = RunDirectory(experiment)
    for split, clips in (("train", 4 * STEPS), ("validation", 4)):
        rng = np.random.default_rng(clips)
        rows = [
            {
                **dict.fromkeys(("clip_id", "path", "freesound_id", "youtube_id", "audio_sha256"), str(row)),
                "duration_s": 1.0 + row % 3,
                "captions": [f"a {('dog', 'bell', 'siren')[row % 3]} sounds {('near', 'far')[row % 2]}"],
                "codes": rng.integers(0, 16, (20 + 5 * (row % 3), 3)).astype(np.int16),
                "log_mel": rng.normal(size=(4, 3)).astype(np.float16),
            }
            for row in range(clips)
        ]
        features = directory.features("sounds", split)
        write_shard(features / "00000.arrow", rows, {"codec": {"codebook_size": 16}}, codebooks=3, mels=3)
        write_embeddings(features, RETRIEVER, "weights", lambda: cast(Retriever, Embedder()))
    MemberMetrics(
        member=RETRIEVER, kind="retriever", split="validation", chosen_by="map@10", epochs=1, best={"epoch": 1},
        kept_epochs=[1], parameters=0, weights="weights", seconds=0.0, seed=0, commit="",
    ).write(directory.member(RETRIEVER))  # fmt: skip
    return MemberJob.of(experiment, directory, CAPTIONER)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_sharded_training_that_lost_a_worker_ends_with_the_same_weights(tmp_path: Path) -> None:
    calm, wild = (captioner_job(tmp_path / name) for name in ("calm", "wild"))
    train(calm, tmp_path / "calm" / "checkpoints", kill=False)
    train(wild, tmp_path / "wild" / "checkpoints", kill=True)
    assert pd.read_parquet(calm.output / "history.parquet")["train_loss"].is_monotonic_decreasing
    assert_trained_alike(calm, wild)

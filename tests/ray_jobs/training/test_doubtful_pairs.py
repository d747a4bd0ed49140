"""After a retriever's training the pairs that agree least are listed, and a collapse is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray.train.torch
import torch

from models.files import sha256_of
from models.retriever.model import Retriever
from models.settings import LogMelConfig, RetrieverConfig
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.features.dataset import read_features
from ray_jobs.features.embeddings import Embeddings, are_there
from ray_jobs.features.files import write_shard
from ray_jobs.results.member import DOUBTFUL_PAIRS, MemberMetrics
from ray_jobs.training import doubtful_pairs
from ray_jobs.training.doubtful_pairs import pair_similarities
from ray_jobs.training.tasks.base import Trained
from ray_jobs.training.tasks.retriever import RetrieverTask

from .test_tasks import job_of

TRAIN, VALIDATION, MELS = 50, 10, 32
NOISES, PLACES = ("dog barks", "bell rings", "siren wails", "engine idles"), ("near", "far", "inside", "in the rain")
SWAPPED = (17, 30)  # clips whose captions were exchanged


def heard(clip: int) -> str:
    """What is really heard in a clip."""
    return f"a {NOISES[clip % 4]} {PLACES[clip // 4 % 4]} {clip} times"


def captions(clip: int) -> list[str]:
    """A clip's captions in the corpus: both fit it, or those of a swapped clip fit another."""
    if clip in SWAPPED:
        clip = SWAPPED[1 - SWAPPED.index(clip)]
    return [heard(clip)] if clip % 5 == 0 else [heard(clip), heard(clip)]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Retriever:
    """A retriever that hears perfectly: a clip's audio embedding is that of the text that tells what is heard."""
    torch.manual_seed(0)
    sizes: dict[str, float] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    sizes["initializer_range"] = 1.0  # texts differ by more than rounding
    config = RetrieverConfig.model_validate(
        {
            "log_mel": {"n_mels": MELS},
            "audio_encoder": {"backbone": "random:convnext", "dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
            "text_encoder": {"name": "random:bert", "tokenizer": "bpe", "vocab_size": 300, "sizes": sizes},
            "joint_dim": 8,
        }
    )
    model = Retriever.create(config, map(heard, range(TRAIN))).eval()
    monkeypatch.setattr(
        Retriever, "audio_embeddings", lambda self, clips: self.text_embeddings([heard(int(c[0, 0])) for c in clips])
    )
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    return model


def task_of(folder: Path, model: Retriever, embedded: str, **settings: Any) -> RetrieverTask:
    """The task of a training that is published, over clips in files; `embedded` splits are read by captioners."""
    for split, clips in (("train", TRAIN), ("validation", VALIDATION)):
        rows = [
            {
                **dict.fromkeys(("freesound_id", "youtube_id", "audio_sha256"), ""),
                "clip_id": f"{split}-{clip}",
                "path": f"/audio/{split}-{clip}.wav",
                "duration_s": 1.0,
                "captions": captions(clip),
                "codes": np.zeros((1, 1), np.int16),
                "log_mel": np.full((8, MELS), clip, np.float16),
            }
            for clip in range(clips)
        ]
        for at in range(0, clips, 8):
            shard = folder / "sounds" / split / f"{at // 8:05d}.arrow"
            write_shard(shard, rows[at : at + 8], {"codec": {}, "inputs": shard.name}, codebooks=1, mels=MELS)
    training = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    member = RetrieverMember.model_validate({"kind": "retriever", "training": training, **settings})
    output = folder / "members" / "retriever"
    model.save(output)
    metrics(output).write(output)
    splits = {split: folder / "sounds" / split for split in ("train", "validation")}
    job = job_of(member, LogMelConfig(n_mels=MELS))
    return RetrieverTask(
        replace(
            job,
            output=output,
            train=[splits["train"]],
            validation=[splits["validation"]],
            embedded=[splits[split] for split in embedded.split()],
        )
    )


def metrics(output: Path, **values: float) -> MemberMetrics:
    return MemberMetrics(
        member="retriever", kind="retriever", split="validation", chosen_by="map@10", epochs=1,
        best={"epoch": 1, "map@10": 0.5, **values}, kept_epochs=[1], parameters=1,
        weights=sha256_of(output / "model.safetensors"), seconds=1.0, seed=0, commit="",
    )  # fmt: skip


@pytest.mark.parametrize("embedded", ["train validation", "validation", ""])
def test_clips_whose_captions_were_swapped_are_listed(
    embedded: str, tmp_path: Path, model: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubtful_pairs, "CLIPS_AT_ONCE", 7)
    task, said = task_of(tmp_path, model, embedded, doubtful_pairs=0.03), list[str]()
    task.finish(0, 1, said.append)
    table = pd.read_parquet(task.job.output / DOUBTFUL_PAIRS)
    assert list(table) == ["similarity", "corpus", "split", "clip_id", "path", "caption"]
    train = table[table["split"] == "train"]
    assert len(train) == 3, "3 % of 90 pairs"
    found = dict(zip(train["path"], train["caption"], strict=True))
    assert found == {f"/audio/train-{clip}.wav": captions(clip)[0] for clip in SWAPPED}
    assert train["similarity"].is_monotonic_increasing
    assert train["similarity"].max() < table.loc[table["split"] == "validation", "similarity"].min() - 1e-3
    assert set(table["corpus"]) == {"sounds"}
    (line,) = [line for line in said if "agree least" in line]
    assert f"the 4 of 108 pairs of clip and caption that agree least, in {task.job.output / DOUBTFUL_PAIRS}" in line
    assert f"of {train['path'].iloc[0]}: {train['caption'].iloc[0]!r}" in line
    assert are_there(task.job.embedded, task.job.name, str(MemberMetrics.read(task.job.output).weights))


def test_pairs_are_listed_once_a_training_and_only_where_they_are_wanted(tmp_path: Path, model: Retriever) -> None:
    task, said = task_of(tmp_path, model, "", doubtful_pairs=0.0), list[str]()
    task.finish(0, 1, said.append)
    assert not (task.job.output / DOUBTFUL_PAIRS).exists()
    task = task_of(tmp_path, model, "")
    task.finish(0, 1, said.append)
    written = (task.job.output / DOUBTFUL_PAIRS).stat().st_mtime_ns
    task.finish(0, 1, said.append)
    assert (task.job.output / DOUBTFUL_PAIRS).stat().st_mtime_ns == written
    (tmp_path / "kept" / "1").mkdir(parents=True)
    model.save(tmp_path / "kept" / "1")
    task.publish(Trained(tmp_path / "kept", [1], [{"epoch": 1, "seconds": 1.0}], 1), "")
    assert not (task.job.output / DOUBTFUL_PAIRS).exists(), "they were of other weights"


def test_workers_share_the_pairs(tmp_path: Path, model: Retriever, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubtful_pairs, "CLIPS_AT_ONCE", 8)
    clips = read_features(task_of(tmp_path, model, "").job.train)
    kept = Embeddings([np.random.default_rng(0).normal(size=(TRAIN, 8)).astype(np.float32)])
    whole = pair_similarities(model, clips, kept)
    shares = [pair_similarities(model, clips, kept, rank, 3) for rank in range(3)]
    np.testing.assert_allclose(sum(shares), whole, atol=1e-5)
    assert [int((share != 0).sum()) for share in shares] == [33, 29, 28], "blocks of 8 clips in turn"
    assert whole.shape == (90,)


def test_a_collapse_is_told_when_training_ends(tmp_path: Path, model: Retriever) -> None:
    task, said = task_of(tmp_path, model, "", doubtful_pairs=0.0), list[str]()
    metrics(task.job.output, text_cosine=0.991, audio_cosine=0.3).write(task.job.output)
    task.finish(0, 1, said.append)
    (line,) = said
    assert line.startswith("retriever  the embeddings of texts are all but alike (mean cosine 0.991")


def test_validation_measures_how_alike_texts_and_clips_are(tmp_path: Path, model: Retriever) -> None:
    task = task_of(tmp_path, model, "")
    task.job = replace(task.job, validation=task.job.train)
    values = task.validate(model).values
    assert values["map@10"] > 0.5
    assert 0.5 < values["text_cosine"] < 1.0
    assert values["audio_cosine"] == pytest.approx(values["text_cosine"], abs=0.1)

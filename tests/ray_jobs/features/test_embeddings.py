"""Audio embeddings are made once, shared by workers, kept by weights, and read as views."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray.train.torch
import torch

from models.files import sha256_of
from models.records import RecordError
from models.retriever.model import Retriever
from models.settings import AudioEncoderConfig, LogMelConfig, RetrieverConfig, TextEncoderConfig
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features import embeddings
from ray_jobs.features.dataset import read_features
from ray_jobs.features.embeddings import (
    are_there,
    embedded_splits,
    read_embeddings,
    weights_checksum,
    write_embeddings,
)
from ray_jobs.features.files import FeaturesError, write_shard
from ray_jobs.results.member import MemberMetrics, checked_weights
from ray_jobs.run.directory import RunDirectory, mark_done
from ray_jobs.training.member_job import MemberJob
from ray_jobs.training.tasks.base import make_task
from ray_jobs.training.tasks.retriever import RetrieverTask

from ..conftest import ROOT
from .clips import clips

NAME, MELS = "retriever-bge", 32


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two splits of 5 and 3 shards of 4 clips, two shards a file of embeddings."""
    monkeypatch.setattr(embeddings, "SHARDS_PER_FILE", 2)
    for split, shards in (("train", 5), ("validation", 3)):
        for number in range(shards):
            seed = number + (100 if split == "train" else 0)
            write_clips(tmp_path / split / f"{number:05d}.arrow", seed)
    return [tmp_path / "train", tmp_path / "validation"]


def write_clips(path: Path, seed: int) -> None:
    """Four clips, of log-mels that an audio encoder can read."""
    rng = np.random.default_rng(seed)
    written = [
        clip | {"log_mel": rng.normal(size=(40 + n, MELS)).astype(np.float16)} for n, clip in enumerate(clips(4, seed))
    ]
    write_shard(path, written, {"codec": {"name": "x"}, "inputs": f"made-{seed}"}, codebooks=3, mels=MELS)


def retriever() -> Retriever:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = RetrieverConfig(
        log_mel=LogMelConfig(n_mels=MELS),
        audio_encoder=AudioEncoderConfig(backbone="random:convnext", dims=(8, 8, 8, 8), depths=(1, 1, 1, 1)),
        text_encoder=TextEncoderConfig(name="random:bert", tokenizer="bpe", vocab_size=300, sizes=sizes),
        joint_dim=6,
    )
    return Retriever.create(config, ["a dog barks"]).eval()


def never() -> Retriever:
    raise AssertionError("loaded, though all embeddings are there")


def test_workers_share_what_one_would_make_and_nothing_is_made_twice(splits: list[Path]) -> None:
    model, (train, _) = retriever(), splits
    made = [write_embeddings(train, NAME, "w", lambda: model, slice(rank, None, 2)) for rank in range(2)]
    assert made == [12, 8], "files 0 and 2, file 1"
    assert not are_there(splits, NAME, "w")
    write_embeddings(splits[1], NAME, "w", lambda: model)
    assert are_there(splits, NAME, "w")
    assert write_embeddings(train, NAME, "w", never) == 0
    features = read_features(splits)
    found = read_embeddings(splits, NAME, "w", features.clip_ids)
    expected = model.audio_embeddings(features.log_mels)
    np.testing.assert_allclose(found[:], expected, atol=1e-5)
    rows = np.array([31, 0, 7, 8, 20, 0])
    assert np.array_equal(found[rows], found[:][rows])
    assert found[3:5].shape == (2, 6)


def test_embeddings_belong_to_weights_and_whole_files(splits: list[Path]) -> None:
    model, (train, _) = retriever(), splits
    write_embeddings(train, NAME, "first", lambda: model)
    ids = read_features([train]).clip_ids
    with pytest.raises(FeaturesError, match=r"00000.arrow: found no audio embeddings of retriever-bge .* weights; `e"):
        read_embeddings([train], NAME, "second", ids)
    assert write_embeddings(train, NAME, "second", lambda: model) == 20
    damaged = train / "embeddings" / NAME / "00001.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert not are_there([train], NAME, "second")
    assert write_embeddings(train, NAME, "second", lambda: model) == 8, "the damaged file alone"
    assert are_there([train], NAME, "second")


def test_embeddings_of_other_clips_are_refused_by_name(splits: list[Path]) -> None:
    model, (train, _) = retriever(), splits
    write_embeddings(train, NAME, "w", lambda: model)
    with pytest.raises(FeaturesError, match=r"train: audio embeddings of retriever-bge are of other clips \(20\)"):
        read_embeddings([train], NAME, "w", ["another", *read_features([train]).clip_ids[1:]])
    write_clips(train / "00005.arrow", 9)
    assert not are_there([train], NAME, "w"), "a shard more"


def test_embeddings_of_shards_that_were_made_again_are_made_again(splits: list[Path]) -> None:
    model, (train, _) = retriever(), splits
    made = {f"{number:05d}.arrow": f"made-{number + 100}" for number in range(5)}
    mark_done(train.parent, "", shards={"train": made})
    assert write_embeddings(train, NAME, "w", lambda: model) == 20
    write_clips(train / "00003.arrow", 7)
    mark_done(train.parent, "", shards={"train": made | {"00003.arrow": "made-7"}})
    assert not are_there([train], NAME, "w")
    assert write_embeddings(train, NAME, "w", lambda: model) == 8, "the file of shards 2 and 3"
    features = read_features([train])
    found = read_embeddings([train], NAME, "w", features.clip_ids)[:]
    np.testing.assert_allclose(found, model.audio_embeddings(features.log_mels), atol=1e-5)


@pytest.mark.parametrize("damage", ["no column", "no batch", "zeros"])
def test_files_of_another_layout_are_made_again(splits: list[Path], damage: str) -> None:
    model, (train, _) = retriever(), splits
    write_embeddings(train, NAME, "w", lambda: model)
    file = train / "embeddings" / NAME / "00000.arrow"
    table = pa.ipc.open_file(file).read_all()
    if damage == "zeros":
        content = file.read_bytes()
        file.write_bytes(content[:600] + bytes(len(content) - 610) + content[-10:])
    else:
        table = table.drop_columns("audio_embedding") if damage == "no column" else table.slice(0, 0)
        with pa.ipc.new_file(file, table.schema) as written:
            for batch in table.to_batches() if damage == "no column" else []:
                written.write_batch(batch)
    assert not are_there([train], NAME, "w")
    assert write_embeddings(train, NAME, "w", lambda: model) == 8


def test_weights_that_training_did_not_write_are_refused(tmp_path: Path) -> None:
    """Audio embeddings are of the recorded weights; text embeddings of others would not fit them."""
    member = tmp_path / "members" / NAME
    retriever().save(member)
    values = {"epoch": 1, "map@10": 0.5}
    metrics = MemberMetrics(
        member=NAME, kind="retriever", split="validation", chosen_by="map@10", epochs=1, best=values, kept_epochs=[1],
        parameters=1, weights=sha256_of(member / "model.safetensors"), seconds=1.0, seed=0, commit="",
    )  # fmt: skip
    metrics.write(member)
    assert checked_weights(member) == member
    assert weights_checksum(member) == metrics.weights
    torch.manual_seed(1)
    other = retriever()
    other.metric.factor.data.add_(1)
    other.save(member)
    with pytest.raises(RecordError, match=r"model\.safetensors: found SHA-256 .*as in metrics\.json; copy the file"):
        checked_weights(member)
    metrics.model_copy(update={"weights": None}).write(member)
    assert checked_weights(member) == member, "an earlier version recorded none"
    assert weights_checksum(member) == sha256_of(member / "model.safetensors")


def test_a_retriever_embeds_on_its_workers_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment(ROOT / "experiments" / "smoke.yaml", [f"storage_path={tmp_path}"])
    task = make_task(MemberJob.of(experiment, RunDirectory(experiment), NAME))
    assert isinstance(task, RetrieverTask)
    saved = tmp_path / "member"
    retriever().save(saved)
    monkeypatch.setattr("ray_jobs.training.tasks.retriever.checked_weights", lambda _: saved)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("meta"))
    assert {parameter.device.type for parameter in task._published.parameters()} == {"meta"}


def test_a_retriever_embeds_what_its_captioners_and_the_searches_read() -> None:
    experiment = load_experiment(ROOT / "experiments" / "dcase2024.yaml")

    def of(name: str) -> list[str]:
        found = embedded_splits(experiment, RunDirectory(experiment), name)
        return [f"{path.parent.name}/{path.name}" for path in found]

    assert of("retriever-bge") == ["audiocaps/train", "wavcaps/train", "clotho/train", "clotho/validation"]
    assert of("retriever-bert") == ["clotho/validation"], "no captioner reads it"


def test_views_do_not_copy_the_files(splits: list[Path]) -> None:
    model, (train, _) = retriever(), splits
    write_embeddings(train, NAME, "w", lambda: model)
    found = read_embeddings([train], NAME, "w", read_features([train]).clip_ids)
    assert not any(file.flags.writeable for file in found._files), "a copy could be written to"

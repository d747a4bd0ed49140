"""Retrievers with audio encoders of transformers: from waveforms beside the features to a member that loads offline."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from models.retriever.model import Retriever
from models.settings import LogMelConfig
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.features.embeddings import write_embeddings
from ray_jobs.features.files import write_shard
from ray_jobs.features.waveforms import write_shard_waveforms
from ray_jobs.training.tasks.base import Trained
from ray_jobs.training.tasks.retriever import RetrieverTask
from tests.models.encoders.published_layouts import KINDS, RATES, save_published

from .test_tasks import job_of

CLIPS = 12
WORDS = ("dog", "bell", "siren", "engine")


def make_features(folder: Path, rate: int) -> Path:
    """Features of clips of 0.3 to 1.4 s, each a tone of its own, with their waveforms."""
    rows = []
    for n in range(CLIPS):
        path = folder / f"{n}.wav"
        t = np.arange(round((0.3 + 0.1 * n) * 16_000)) / 16_000
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * 200 * 1.3**n * t), 16_000)
        rows.append({
            **dict.fromkeys(("clip_id", "freesound_id", "youtube_id", "audio_sha256"), str(n)),
            "path": str(path),
            "duration_s": len(t) / 16_000,
            "captions": [f"a {WORDS[n % 4]} {verb} {n}" for verb in ("sounds", "fades")],
            "codes": np.zeros((1, 1), np.int16),
            "log_mel": np.random.default_rng(n).normal(size=(50 + n, 8)).astype(np.float16),
        })  # fmt: skip
    split = folder / "corpus" / "train"
    for at in range(0, CLIPS, 6):
        shard = split / f"{at // 6:05d}.arrow"
        write_shard(shard, rows[at : at + 6], {"codec": {}, "inputs": f"{at}"}, codebooks=1, mels=8)
        write_shard_waveforms({"shard": str(shard), "rate": rate}, longest_s=30.0)
    return split


def task_of(folder: Path, kind: str, **settings: Any) -> RetrieverTask:
    split = make_features(folder, RATES[kind])
    backbone = f"hf:{save_published(kind, folder / kind)}"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    member = RetrieverMember.model_validate({
        "kind": "retriever",
        "audio_encoder": {"backbone": backbone, "sample_rate": RATES[kind], **settings.pop("audio_encoder", {})},
        "text_encoder": {"name": "random:bert", "vocab_size": 200, "sizes": sizes},
        "joint_dim": 8,
        "hidden_dim": 16,
        "training": {"epochs": 1, "batch_size": 6, "learning_rate": 1e-3},
        **settings,
    })  # fmt: skip
    job = job_of(member, LogMelConfig(n_mels=8))
    return RetrieverTask(replace(job, train=[split], validation=[split], output=folder / "member"))


def two_steps(task: RetrieverTask, model: Retriever) -> None:
    optimizer = task.optimizer(model)
    for step, batch in enumerate(task.batches(0, 0, 1)):
        read = task.read(batch)
        task.seed_step(0, step, 0)
        losses = task.loss(model.train(), read, torch.device("cpu"))
        assert 0 <= float(losses["padding"]) < 1
        optimizer.zero_grad()
        losses["loss"].backward()
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
        optimizer.step()


@pytest.mark.parametrize(
    ("kind", "finetuning"), [*((kind, "full") for kind in KINDS), ("ast", "frozen"), ("clap", "lora"), ("sew", "lora")]
)
def test_a_retriever_trains_and_loads_without_the_published_directory(
    kind: str, finetuning: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    task = task_of(tmp_path, kind, audio_encoder={"finetuning": finetuning}, mixup_alpha=0.4)
    model = task.new_model()
    before = {name: tensor.clone() for name, tensor in model.audio_encoder.state_dict().items()}
    two_steps(task, model)
    changed = [
        name for name, tensor in model.audio_encoder.state_dict().items() if not torch.equal(tensor, before[name])
    ]
    assert bool(changed) == (finetuning != "frozen")
    assert finetuning != "lora" or all("lora_" in name for name in changed)
    values = task.validate(model.eval()).values
    assert 0 <= values["map@10"] <= 1
    model.save(tmp_path / "kept" / "1")
    (tmp_path / kind).rename(tmp_path / "gone")
    task.publish(Trained(tmp_path / "kept", [1], [{"epoch": 1, "seconds": 0.0, **values}], 1), "commit")
    loaded = Retriever.load(tmp_path / "member")
    assert not [name for name in loaded.state_dict() if "lora_" in name or "base_layer" in name]
    assert loaded.waveform_rate == RATES[kind]
    wanted = model.audio_embeddings(task.train.audio)
    np.testing.assert_allclose(loaded.audio_embeddings(task.train.audio), wanted, atol=1e-5)


def test_an_epoch_with_chunks_has_the_gradient_of_whole_batches(tmp_path: Path) -> None:
    task = task_of(tmp_path, "whisper", loss="nt-xent", dropout=0.0)
    torch.manual_seed(0)
    model = task.new_model().eval()
    audio, lengths, texts, clips, *_ = task.read(next(task.batches(0, 0, 1)))
    gradients = []
    for chunk in (None, 2):
        model.zero_grad()
        model(audio, lengths, texts, clips, chunk_size=chunk).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_training_reads_stretches(tmp_path: Path) -> None:
    task = task_of(tmp_path, "wav2vec2", audio_encoder={"max_seconds": 0.5})
    for batch in task.batches(0, 0, 1):
        features, lengths, *_ = task.read(batch)
        durations = np.asarray(task.train.durations_s)[batch.clips]
        assert features.shape[:2] == (6, 1)
        assert lengths[:, 0].tolist() == [round(16_000 * min(0.5, seconds)) for seconds in durations]


def test_training_goes_on_with_adapters_and_from_merged_weights(tmp_path: Path) -> None:
    task = task_of(tmp_path, "ast", audio_encoder={"finetuning": "lora"})
    model = task.new_model()
    two_steps(task, model)
    model.save(tmp_path / "last")
    resumed = task.load(tmp_path / "last")
    assert resumed.state_dict().keys() == model.state_dict().keys()
    assert [p.requires_grad for p in resumed.parameters()] == [p.requires_grad for p in model.parameters()]
    np.testing.assert_allclose(
        resumed.audio_embeddings(task.train.audio), model.eval().audio_embeddings(task.train.audio), atol=1e-6
    )
    wanted = model.audio_embeddings(task.train.audio)
    for settings in ({"finetuning": "lora"}, {"finetuning": "full"}, {"finetuning": "lora", "lora_rank": 2}):
        encoder = task._member.audio_encoder.model_copy(update=settings)
        task.job = replace(task.job, member=task._member.model_copy(update={"audio_encoder": encoder}))
        started = task.start_from(tmp_path / "last")
        assert started.config.audio_encoder == encoder
        np.testing.assert_allclose(started.eval().audio_embeddings(task.train.audio), wanted, atol=1e-5)
        own = [name for name, p in started.audio_encoder.named_parameters() if p.requires_grad]
        assert all("lora_" in name for name in own) == (encoder.finetuning == "lora")


def test_embeddings_of_a_split_are_made_of_its_waveforms(tmp_path: Path) -> None:
    task = task_of(tmp_path, "clap")
    model = task.new_model().eval()
    assert write_embeddings(task.job.train[0], "clap", "weights", lambda: model) == CLIPS

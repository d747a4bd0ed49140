"""A run of seconds with two retrievers, two captioners, and a student of each kind, over features that are made up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from models.captioner.model import Captioner
from models.files import sha256_of
from models.retriever.model import Retriever
from models.settings import CaptionerConfig, RetrieverConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import AnyMember, CaptionerMember, RetrieverMember
from ray_jobs.features.files import write_shard
from ray_jobs.results.member import MemberMetrics
from ray_jobs.run.directory import RunDirectory, mark_done

CLIPS, PER_SHARD, MELS = 20, 2, 32
NOISES, PLACES = ("dog", "bell", "siren", "engine"), ("near", "far", "twice", "outside")
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
BART = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 160,
    "init_std": 0.5,
}  # fmt: skip
RETRIEVERS, CAPTIONERS = ("retriever-a", "retriever-b"), ("captioner-a", "captioner-b")


def captions(clip: int) -> list[str]:
    """One to three captions of a clip, all different."""
    return [f"a {NOISES[clip % 4]} sounds {PLACES[n]} {clip} times" for n in range(1 + clip % 3)]


def raw_experiment(folder: Path) -> dict[str, Any]:
    """The experiment as it stands in a file."""
    training = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3}
    retriever = {
        "kind": "retriever", "training": training, "joint_dim": 8, "hidden_dim": 16, "loss": "nt-xent",
        "audio_encoder": {"backbone": "random:convnext", "dims": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
        "text_encoder": {"name": "random:bert", "tokenizer": "bpe", "vocab_size": 300, "sizes": TEXT},
        "doubtful_pairs": 0,
    }  # fmt: skip
    captioner = {
        "kind": "captioner", "audio_embedding": RETRIEVERS[0], "language_model": "random:bart", "sizes": BART,
        "tokenizer": "wordpiece", "vocab_size": 120, "training": training, "captions_per_clip": 2, "watched_clips": 0,
    }  # fmt: skip
    return {
        "name": "small",
        "storage_path": str(folder),
        "corpora": {"sounds": {"kind": "folder", "root": str(folder), "splits": ["train", "validation", "test"]}},
        "target_corpus": "sounds",
        "features": {"log_mel": {"n_mels": MELS}},
        "members": {
            RETRIEVERS[0]: retriever,
            RETRIEVERS[1]: {**retriever, "loss": "m-ltm", "joint_dim": 6},
            CAPTIONERS[0]: captioner,
            CAPTIONERS[1]: {**captioner, "audio_embedding": [*RETRIEVERS]},
            "student-r": {**retriever, "distil_from": [*RETRIEVERS]},
            "student-c": {
                **captioner,
                "audio_embedding": "student-r",
                "distil_from": [*CAPTIONERS],
                "distillation": {"caption_share": 0.5, "beam": {"beams": 2, "max_tokens": 8}, "token_weight": 0.5},
            },
        },
    }


def write_run(folder: Path, splits: tuple[str, ...] = ("train", "validation"), **changes: Any) -> Experiment:
    """Write the experiment's file small.yaml and features of 10 shards of 2 clips.

    Args:
        changes: of the file's top-level keys.
    """
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(raw_experiment(folder) | changes), encoding="utf-8")
    experiment = load_experiment(path)
    directory = RunDirectory(experiment)
    for split in splits:
        rng = np.random.default_rng(len(split))
        rows = [
            {
                **dict.fromkeys(("freesound_id", "youtube_id", "audio_sha256"), ""),
                "clip_id": f"{split}-{clip}",
                "path": f"/audio/{split}-{clip}.wav",
                "duration_s": 1.0,
                "captions": captions(clip),
                "codes": rng.integers(0, 16, (20 + clip, 3)).astype(np.int16),
                "log_mel": rng.normal(size=(40 + clip, MELS)).astype(np.float16),
            }
            for clip in range(CLIPS)
        ]
        for at in range(0, CLIPS, PER_SHARD):
            shard = directory.features("sounds", split) / f"{at // PER_SHARD:05d}.arrow"
            metadata = {"codec": {"codebook_size": 16}, "inputs": shard.name}
            write_shard(shard, rows[at : at + PER_SHARD], metadata, codebooks=3, mels=MELS)
    mark_done(directory.features("sounds"), directory.features_inputs())
    return experiment


def save_teachers(experiment: Experiment, names: Sequence[str] = (*RETRIEVERS, *CAPTIONERS)) -> None:
    """Write the teachers, or other members, as if they were trained: random weights."""
    words = [caption for clip in range(CLIPS) for caption in captions(clip)]
    for number, name in enumerate(names):
        torch.manual_seed(number)
        save(experiment, name, new_model(experiment.members[name], experiment, words))


def new_model(member: AnyMember, experiment: Experiment, words: list[str]) -> Retriever | Captioner:
    if isinstance(member, RetrieverMember):
        return Retriever.create(member.convert(RetrieverConfig, log_mel=experiment.features.log_mel), words).eval()
    assert isinstance(member, CaptionerMember)
    dim = sum(experiment.members[name].joint_dim for name in member.retrievers())  # type: ignore[union-attr, misc]
    config = member.convert(CaptionerConfig, codebooks=3, codebook_size=16, audio_embedding_dim=dim)
    return Captioner.create(config, words).eval()


def save(experiment: Experiment, name: str, model: Retriever | Captioner) -> None:
    directory = RunDirectory(experiment)
    output = directory.member(name)
    model.save(output)
    MemberMetrics(
        member=name, kind=model.kind, split="validation", chosen_by="map@10", epochs=1,
        best={"epoch": 1, "text_cosine": 0.1, "audio_cosine": 0.1}, kept_epochs=[1], parameters=1,
        weights=sha256_of(output / "model.safetensors"), seconds=1.0, seed=0, commit="",
    ).write(output)  # fmt: skip
    mark_done(output, directory.member_inputs(name))

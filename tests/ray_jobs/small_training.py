"""A training of seconds over features that are made up: one fluency detector, of captions alone."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features.files import write_shard
from ray_jobs.run.directory import RunDirectory, mark_done

MEMBER = "fluency"
STEPS = 4  # an epoch
THINGS, VERBS, PLACES = ("dog", "bell", "engine", "bird"), ("sounds", "fades", "returns"), ("near", "far", "twice")


def write_experiment(folder: Path, epochs: int, resources: dict[str, Any], **training: Any) -> Path:
    """The experiment's file, in a new folder that is its storage, too, with all that `train` needs."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    member = {
        "kind": "fluency-detector",
        "text_encoder": {"name": "random:bert", "tokenizer": "bpe", "vocab_size": 300, "sizes": sizes},
        "training": {"epochs": epochs, "batch_size": 16, "learning_rate": 1e-3, "ema_decay": 0.9, **training},
        "resources": resources,
    }
    corpus = {"kind": "folder", "root": str(folder / "audio"), "splits": ["train", "validation", "test"]}
    raw = {"name": "small", "storage_path": str(folder), "corpora": {"sounds": corpus}, "target_corpus": "sounds",
           "members": {MEMBER: member}}  # fmt: skip
    folder.mkdir()
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    _write_features(load_experiment(path))
    return path


def _write_features(experiment: Experiment) -> None:
    directory = RunDirectory(experiment)
    captions = [f"a {thing} {verb} {place}" for thing in THINGS for verb in VERBS for place in PLACES]
    for split, clips in (("train", 8 * STEPS), ("validation", 12)):
        rows = [
            {
                "clip_id": str(row),
                "path": f"/audio/{row}.wav",
                "freesound_id": "",
                "youtube_id": "",
                "audio_sha256": "",
                "duration_s": 1.0,
                "captions": [captions[row % len(captions)]],
                "codes": np.zeros((1, 1), np.int16),
                "log_mel": np.zeros((1, 1), np.float16),
            }
            for row in range(clips)
        ]
        shard = directory.features("sounds", split) / "00000.arrow"
        write_shard(shard, rows, {"codec": {"name": "none"}}, codebooks=1, mels=1)
    mark_done(directory.features("sounds"), directory.features_inputs())

"""What Ray reserves for a task or actor is where its models are; and prepare's stages as they are laid out with GPUs.

The GPU is one that Ray was told of: on this machine there need not be any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import soundfile
import torch

from corpora.folder import read_folder
from corpora.soundscapes.render import write_captions, write_clip
from corpora.soundscapes.sampling import sample_scenes
from models import device
from models.captioner.model import Captioner
from models.fluency.detector import FluencyDetector
from models.retriever.model import Retriever
from models.settings import LogMelConfig
from ray_jobs.experiment.config import ActorResources, FeaturesConfig
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.features import dry_run, shards
from ray_jobs.features.shards import EncoderLoad, Shard, ShardEncoder, ShardMaker, make_shards, plan_shards
from ray_jobs.run.session import reserved_device
from ray_jobs.tuning import trained_members
from ray_jobs.tuning.trained_members import TrainedMembers

from .conftest import ROOT

META = torch.device("meta")  # stands for the GPU: whatever is moved there can be told by its tensors
LOG_MEL = LogMelConfig(sample_rate=8_000, n_fft=512, hop_length=400, n_mels=32, f_min=50, f_max=4000)
FEATURES = FeaturesConfig(codec="dac-soundscapes-16khz", log_mel=LOG_MEL, clips_per_shard=3)


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[None]:
    """Start Ray with the fewest CPUs: readers take all of them, and encoders and writers must not need any."""
    ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("devices") / "corpus"
    scenes = sample_scenes({"test": 7}, seed=0)["test"]
    for scene in scenes:
        write_clip(scene, root, 16_000)
    write_captions(root, "test", scenes)
    first = next((root / "test").iterdir())
    soundfile.write(first, np.zeros(16_000), 16_000)  # one that is set aside
    return root


def planned(corpus: Path, target: Path) -> list[Shard]:
    return plan_shards(read_folder(corpus, "test").clips, FEATURES, target)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@ray.remote(num_cpus=0)
def device_of_a_task() -> str:
    device.available_device = lambda: torch.device("cuda")  # this process is the task's own
    return reserved_device().type


def test_a_task_computes_on_the_gpu_that_ray_reserved_for_it(one_gpu: None) -> None:
    assert ray.get(device_of_a_task.options(num_gpus=0.25).remote()) == "cuda"
    assert ray.get(device_of_a_task.options(num_gpus=0).remote()) == "cpu"


def test_what_reserved_nothing_computes_on_the_cpu_where_ray_runs(
    one_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "available_device", lambda: torch.device("cuda"))
    assert reserved_device().type == "cpu"
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert reserved_device().type == "cuda"


def test_readers_encoders_and_writers_make_what_one_actor_makes(one_gpu: None, corpus: Path, tmp_path: Path) -> None:
    made = list(make_shards(planned(corpus, tmp_path / "stages"), FEATURES, 16_000, ActorResources()))
    maker = ShardMaker(FEATURES)
    alone = [maker({"shard": shard.to_json()}) for shard in planned(corpus, tmp_path / "alone")]
    assert digests(tmp_path / "stages") == digests(tmp_path / "alone")
    assert sum(one["clips"] for one in made) == sum(one["clips"] for one in alone) == 7
    assert sum(one["seconds"] for one in made) == pytest.approx(sum(one["seconds"] for one in alone))
    load = EncoderLoad()
    for one in made:
        load.add(one)
    assert 0 < load.share <= 1


def test_a_dry_run_is_measured_on_what_an_encoder_reserves(
    one_gpu: None, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: Any) -> tuple[dry_run.Cost, list[str]]:
        return dry_run.Cost(len(ray.get_gpu_ids()), 1.0, 1), []

    monkeypatch.setattr(dry_run, "_measure", measure)
    costs: list[dry_run.Cost] = []

    def amounts(_: float, cost: dry_run.Cost, __: int) -> tuple[str, str, str]:
        costs.append(cost)
        return "", "", ""

    monkeypatch.setattr(dry_run, "_amounts", amounts)
    clips = read_folder(corpus, "test").clips
    set_aside = pd.DataFrame(columns=["corpus", "split", "reason"])
    dry_run.show_estimate({("a", "test"): clips}, set_aside, FEATURES, ActorResources())
    assert {cost.seconds for cost in costs} == {1}


def test_what_warms_up_is_not_measured(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group of four clips has 10 s of audio; the first takes a minute, the others two seconds each."""
    now, calls = [0.0], [0]
    monkeypatch.setattr(dry_run.time, "monotonic", lambda: now[0])

    class Maker:
        def __init__(self, features: FeaturesConfig) -> None: ...

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            calls[0] += 1
            now[0] += 60 if calls[0] == 1 else 2
            shard = Shard(**json.loads(row["shard"]))
            Path(shard.path).write_bytes(bytes(500))
            return {"clips": len(shard.clips), "seconds": 10.0}

    monkeypatch.setattr(dry_run, "ShardMaker", Maker)
    monkeypatch.setattr(dry_run, "shard_metadata", lambda _: {"quarantine": []})
    clips = read_folder(corpus, "test").clips
    many = clips.sample(60, replace=True, random_state=0)
    assert dry_run._measure(many, FEATURES)[0] == dry_run.Cost(0.2, 50.0, 44), "11 groups are more than 20 s"
    calls[0] = 0
    few, _ = dry_run._measure(dry_run._sample(clips, 0), FEATURES)
    assert few is not None
    assert few.seconds == 0.2, "few clips are measured, too"


def test_an_encoder_puts_codec_and_log_mels_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "reserved_device", lambda: META)
    encoder = ShardEncoder(FEATURES)
    assert encoder.codec.device == META
    assert {buffer.device for buffer in encoder.log_mel.buffers()} == {META}


def test_the_load_is_that_of_all_encoders_by_their_last_shards() -> None:
    load = EncoderLoad()
    for encoder, computing_s, alive_s in (("a", 3.0, 4.0), ("b", 1.0, 4.0), ("a", 3.0, 8.0)):
        load.add({"encoder": encoder, "device": "cuda", "computing_s": computing_s, "alive_s": alive_s})
    assert load.share == pytest.approx(7 / 12)
    assert str(load) == "2 encoders on cuda computed 58% of the time"


def test_members_that_a_search_loads_are_on_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_members, "reserved_device", lambda: META)
    monkeypatch.setattr(trained_members, "read_features", lambda _: None)
    monkeypatch.setattr(trained_members, "checked_weights", lambda member: "")
    for kind in (Retriever, Captioner, FluencyDetector):
        monkeypatch.setattr(kind, "load", lambda _: torch.nn.Linear(1, 1))
    experiment = load_experiment(str(ROOT / "experiments" / "smoke.yaml"), [f"storage_path={tmp_path}"])
    members = TrainedMembers(experiment, "validation")
    loaded = [*members.retrievers.values(), *members.captioners.values(), members.detector]
    assert len(loaded) >= 3
    assert {parameter.device for model in loaded if model for parameter in model.parameters()} == {META}

"""The recipes of CONTRIBUTING.md: what is added by a file and a line is used through the public entry."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import pytest
import ray.train
import ray.train.torch
import timm
import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

import corpora.registry
from corpora.files import AudioFolder
from corpora.rows import Row, split_usable
from corpora.settings import CorpusSettings
from corpora.table import CorpusTable
from models.codec import base
from models.codec.base import Codec, load_codec
from models.codec.weights import State, fill
from models.encoders.audio import AudioEncoder
from models.encoders.text import TextEncoder
from models.settings import AudioEncoderConfig, LogMelConfig, TextEncoderConfig

SMOKE = Path(__file__).parents[1] / "experiments" / "smoke.yaml"


@pytest.fixture
def fresh_ray_jobs() -> Iterator[None]:
    """Import `ray_jobs` anew in the test, as a process does that starts with a changed registry, and then undo it."""

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] == "ray_jobs" or name == "tests.clip_length_task"]

    before = {name: sys.modules.pop(name) for name in loaded()}
    yield
    for name in loaded():
        del sys.modules[name]
    sys.modules.update(before)


def with_kind(union: Any, kind: type) -> Any:
    """Return a union of kinds with one more."""
    return Annotated[get_args(union)[0] | kind, Field(discriminator="kind")]


class LoudnessCodec(Codec):
    """A codebook of loudness in steps, and one of signs."""

    family = "loudness"

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any], state: State, name: str | None = None) -> LoudnessCodec:
        model = nn.Module()
        model.register_parameter("step", nn.Parameter(torch.zeros(1)))
        fill(model, state)
        sizes = {"n_codebooks": 2, "codebook_size": 16, "width": 1}
        return cls(model, arguments, state, name=name, **arguments, **sizes)

    @classmethod
    def from_transformers(cls, config: dict[str, Any], state: State) -> LoudnessCodec:
        return cls.from_arguments({key: config[key] for key in ("sample_rate", "hop_length")}, state)

    def rules(self) -> dict[str, str]:
        return {"padding": "zeros to a whole frame", "chunking": "none"}

    def _encode(self, batch: Tensor, lengths: Sequence[int], kept: int) -> Tensor:
        frames = nn.functional.pad(batch, (0, -batch.shape[1] % self.hop_length)).unflatten(1, (-1, self.hop_length))
        loudness = (frames.abs().mean(2) / self.model.step).clamp(0, 15)
        return torch.stack([loudness, frames.mean(2) > 0], 2).long()[..., : self.n_codebooks]


def test_a_codec_is_a_file_and_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "models.codec.loudness", sys.modules[__name__])  # the file
    monkeypatch.setitem(base.FAMILIES, "loudness", "loudness:LoudnessCodec")  # the line
    config = {"model_type": "loudness", "sample_rate": 16_000, "hop_length": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"step": torch.full((1,), 0.1)}, tmp_path / "model.safetensors")
    codec = load_codec(tmp_path, 1)
    assert (codec.name, codec.frame_rate, codec.n_codebooks) == ("loudness-16khz", 160.0, 1)
    waveform = np.repeat(np.array([0.25, -0.75], np.float32), [100, 150])
    assert codec.encode([waveform])[0].tolist() == [[2], [7], [3]]
    codec.save(tmp_path / "own.safetensors")
    again = load_codec(tmp_path / "own.safetensors")
    assert again.encode([waveform])[0].tolist() == [[2, 1], [7, 0], [3, 0]]
    assert again.keep_codebooks(1).provenance() == codec.provenance()


class LinesCorpus(CorpusSettings):
    """`root` holds the audio, the file `captions` lines of `file name: caption`."""

    paths = ("root", "captions")

    kind: Literal["lines"]
    splits: list[Literal["train", "test"]] = Field(min_length=1)
    captions: str

    def read(self, split: str) -> CorpusTable:
        """Read all lines; both splits are the same."""
        lines = Path(self.captions).read_text(encoding="utf-8").splitlines()
        rows = (Row(f"line {number}", *self._fields(line)) for number, line in enumerate(lines))
        return split_usable(rows, AudioFolder(self.folder))

    @staticmethod
    def _fields(line: str) -> tuple[str, list[str]]:
        name, _, caption = line.partition(": ")
        return name, [caption]


@pytest.mark.usefixtures("fresh_ray_jobs")
def test_a_kind_of_corpus_is_a_file_and_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(corpora.registry, "Corpus", with_kind(corpora.registry.Corpus, LinesCorpus))  # the line
    from ray_jobs.experiment.config import ConfigError
    from ray_jobs.experiment.loading import load_experiment

    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog.wav").touch()
    (tmp_path / "captions.txt").write_text("dog.wav: a dog barks\nbell.wav: a bell rings\n")
    lines = "corpora.mine={kind: lines, root: ., captions: captions.txt, splits: [train]}"
    corpus = load_experiment(SMOKE, [lines]).corpora["mine"]
    monkeypatch.chdir("/")  # Ray's workers run elsewhere
    table = corpus.read("train")
    assert table.clips[["clip_id", "path"]].to_numpy().tolist() == [["dog", str(tmp_path / "dog.wav")]]
    assert table.clips["captions"].tolist() == [["a dog barks"]]
    assert table.quarantine["reason"].tolist() == ["line 1: audio file is missing"]
    with pytest.raises(ConfigError, match=r"corpora\.mine\.splits\.0: .*'train' or 'test'"):
        load_experiment(SMOKE, [lines, "corpora.mine.splits=[valid]"])


class StripesNet(nn.Module):
    """One convolution, as a model of timm."""

    num_features = 6

    def __init__(self, in_chans: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_chans, self.num_features, 8, 8)

    def forward_features(self, x: Tensor) -> Tensor:
        found: Tensor = self.convolution(x)
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^convolution"}


def stripes_net(pretrained: bool = False, in_chans: int = 3, **_: Any) -> StripesNet:
    """Build the model, as timm calls it."""
    return StripesNet(in_chans)


def test_an_audio_encoder_is_registered_with_timm() -> None:
    timm.models.register_model(stripes_net)
    encoder = AudioEncoder.create(AudioEncoderConfig(backbone="stripes_net"), n_mels=32)
    encoder.eval()
    log_mels = torch.randn(2, 64, 32)
    together = encoder(log_mels, torch.tensor([64, 40]))
    assert together.shape == (2, 6)
    torch.testing.assert_close(together[1:], encoder(log_mels[1:, :40], torch.tensor([40])))
    assert set(encoder.layer_depths()) == {name for name, _ in encoder.named_parameters()}


class BagConfig(PretrainedConfig):
    model_type = "bag-of-tokens"

    def __init__(self, hidden_size: int = 12, vocab_size: int = 100, **more: Any) -> None:
        super().__init__(**more)
        self.hidden_size, self.vocab_size = hidden_size, vocab_size


class BagModel(PreTrainedModel):
    """An embedding of each token, as a model of transformers."""

    config_class = BagConfig

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.embedding(input_ids))


def test_a_text_encoder_is_registered_with_transformers(tmp_path: Path) -> None:
    AutoConfig.register("bag-of-tokens", BagConfig)
    AutoModel.register(BagConfig, BagModel)
    config = TextEncoderConfig(name="random:bag-of-tokens", vocab_size=60, sizes={"hidden_size": 12})
    encoder = TextEncoder.create(config, ["a dog barks", "a bell rings twice"]).eval()
    assert encoder.config.pooling == "mean"
    embedded = encoder(["a dog", "a bell rings"])
    assert embedded.shape == (2, 12)
    torch.testing.assert_close(embedded[:1], encoder(["a dog"]))
    encoder.save_layout(tmp_path)
    again = TextEncoder.empty(encoder.config, tmp_path).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(["a dog"]), embedded[:1])


@pytest.mark.usefixtures("fresh_ray_jobs")
def test_a_kind_of_member_is_settings_a_task_and_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray_jobs.experiment import member_config

    class ClipLengthMember(member_config.Member):
        task = "tests.clip_length_task:ClipLengthTask"
        paths: ClassVar = {"notes": "models.files:sha256_of"}

        kind: Literal["clip-length"]
        hidden: int = 8
        notes: str | None = None

        def weight_identity(self) -> dict[str, str]:
            return {"hidden": str(self.hidden)}

        def check_features(self, log_mel: LogMelConfig) -> None:
            if log_mel.n_mels < 8:
                raise ValueError(f"features.log_mel.n_mels: found {log_mel.n_mels}, expected 8 or more")

    monkeypatch.setattr(member_config, "AnyMember", with_kind(member_config.AnyMember, ClipLengthMember))  # the line
    from ray_jobs.experiment.config import ConfigError
    from ray_jobs.experiment.loading import load_experiment
    from ray_jobs.results.member import MemberMetrics
    from ray_jobs.run.directory import RunDirectory, is_done
    from ray_jobs.training.job import TrainingRequest
    from ray_jobs.training.loop import TrainingState
    from ray_jobs.training.member_job import MemberJob
    from ray_jobs.training.memory import Memory, worker_memory
    from ray_jobs.training.tasks.base import make_task
    from ray_jobs.tuning.sweep_space import space

    monkeypatch.chdir(tmp_path)
    member = "members.words={kind: clip-length, notes: a.txt, training: {epochs: 3, batch_size: 4, learning_rate: 0.1}}"
    overrides = [f"storage_path={tmp_path}", member, "sweep.space=learning-rate"]
    for wrong, message in (
        ("members.words.training.parallel=fsdp", "members.words: training.parallel: fsdp is for captioners"),
        ("features.log_mel.n_mels=4", "n_mels: found 4, expected 8 or more"),
        (
            "members.more={kind: clip-length, hidden: 9, init_from: words, training: {epochs: 1, learning_rate: 0.1}}",
            "members.more.hidden: found '9', expected '8' as 'words' has",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            load_experiment(SMOKE, [*overrides, wrong])
    experiment = load_experiment(SMOKE, overrides)
    assert experiment.members["words"].model_dump()["notes"] == str(tmp_path / "a.txt")
    assert experiment.of_kind("clip-length") == ["words"]
    assert list(space(experiment, "words")) == ["training.learning_rate"]
    parameters = 64 * 8 + 8 + 8 + 1
    memory = worker_memory(experiment, "words")
    assert isinstance(memory, Memory)
    assert memory.state == 4 * 4 * parameters

    directory = RunDirectory(experiment)
    write_features(directory, experiment.features.log_mel.n_mels)
    task = make_task(MemberJob.of(experiment, directory, "words"))
    assert task.memory_remedy.startswith("set members.words.training.accumulate, or ")
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray.train, "report", lambda *_, **__: None)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    (tmp_path / "scratch").mkdir()
    state = TrainingState(task, tmp_path / "scratch", rank=0, world=1, request=TrainingRequest(task.job, "", None))
    for _ in range(3):
        state.run_epoch()
    state.publish("abc")
    metrics = MemberMetrics.read(directory.member("words"))
    assert (metrics.kind, metrics.chosen_by, metrics.parameters) == ("clip-length", "squared_error", parameters)
    assert metrics.best["squared_error"] < state.history[0]["squared_error"]
    assert is_done(directory.member("words"), directory.member_inputs("words"))


def write_features(directory: Any, mels: int) -> None:
    """Write clips that are the louder, the longer their captions are."""
    from ray_jobs.features.files import write_shard

    rows = [
        {
            "clip_id": f"c{n}",
            "path": f"c{n}.wav",
            "freesound_id": "",
            "youtube_id": "",
            "audio_sha256": "",
            "duration_s": 1.0,
            "captions": ["word " * (1 + n % 5)],
            "codes": np.zeros((5, 2), np.int16),
            "log_mel": np.full((40, mels), 10 * (n % 5), np.float16),
        }
        for n in range(16)
    ]
    for split in ("train", "validation"):
        shard = directory.features("soundscapes", split) / "00000.arrow"
        write_shard(shard, rows, {"codec": {"codebook_size": 4}, "quarantine": []}, 2, mels)

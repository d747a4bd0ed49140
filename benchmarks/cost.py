"""Time and money that experiments/dcase2024.yaml takes on 1, 8 and 64 GPUs; docs/cost.md shows what this prints.

    python benchmarks/cost.py [--captioner-mfu 0.2] [--retriever-mfu 0.05] [--generation-mfu 0.01] [--cpus 16]

Counted: the floating-point operations of a forward pass, with torch's FlopCounterMode on models of the published sizes
with random weights. A backward pass has twice as many (torch counts those of grouped convolutions many times over, so
they are not used), and cached gradients take a second forward pass. Measured, here: decoding and resampling on a CPU
core. Measured on an H200 by benchmarks/accelerator.py, and so the defaults of options: the shares of the peak (MFU)
that training, generation, and codec and embeddings in float32 reach. Taken from the corpora's papers: numbers of clips.
Assumed, and options too: the accelerator's peak in TFLOP/s (by default that of an H100 SXM and an H200, dense bfloat16
and plain float32), the CPU cores beside each GPU, and the price of a GPU hour.

Clips are as long as they can be: 10 s for pretrained retrievers (max_frames), 22.5 s (the middle of Clotho's range) for
finetuned ones, the 11.85 s that BART's positions hold for captioners. The search draws candidates of all validation
clips for every setting, where in truth poor settings end early. Not included: downloads, metrics, combine. The last
line compares the hours on 8 and 64 GPUs with those on one; nothing is claimed about them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dac
import numpy as np
import soundfile
import torch
from claims import claim, parser, show
from rich.console import Console
from rich.table import Table
from timetable import critical_path, timetable
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSeq2SeqLM

from corpora.audio import load_clip
from models.captioner.model import Captioner
from models.fluency.detector import FluencyDetector
from models.published import LANGUAGE_MODELS, published_architecture
from models.retriever.model import Retriever
from models.settings import (
    CaptionerConfig,
    FluencyDetectorConfig,
    LogMelConfig,
    RetrieverConfig,
    TextEncoderConfig,
)
from models.tokenization import train_tokenizer
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import AnyMember, CaptionerMember, FluencyDetectorMember, RetrieverMember

# Clips and captions of the training splits: Clotho v2.1 (arXiv 1910.09387), AudioCaps v1, WavCaps (arXiv 2303.17395)
CLIPS = {"clotho": 3839, "audiocaps": 49_838, "wavcaps": 403_050}
CAPTIONS = {**CLIPS, "clotho": 5 * 3839}
SECONDS = {"clotho": 22.5, "audiocaps": 10.0, "wavcaps": 30.0}  # WavCaps: the most that `prepare` keeps
VALIDATION_CLIPS = 1045
STEP = 3  # forward passes that a training step costs
START_UP_S = 60.0  # of a trainer (processes, imports, weights, features); assumed
CODES_A_SECOND = 44_100 / 512
FRAMES = int(11.85 * CODES_A_SECOND)  # of a clip that fills BART's positions
CAPTION = "a dog barks twice while rain falls on the roof and wind blows in the distance"
EXPERIMENT = Path(__file__).parents[1] / "experiments" / "dcase2024.yaml"
WORKERS = {1: 1, 8: 4, 64: 16}  # of a pretraining, by the number of GPUs


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--peak", type=float, default=989.0, help="TFLOP/s in bfloat16")
    arguments.add_argument("--peak-float32", type=float, default=67.0, help="TFLOP/s in float32: prepare, embeddings")
    arguments.add_argument("--captioner-mfu", type=float, default=0.2, help="share of the peak that training reaches")
    arguments.add_argument("--retriever-mfu", type=float, default=0.05, help="the same of retrievers")
    arguments.add_argument("--generation-mfu", type=float, default=0.01, help="the same of drawing candidates")
    arguments.add_argument("--float32-mfu", type=float, default=0.3, help="the same of the peak in float32")
    arguments.add_argument("--cpus", type=float, default=16, help="CPU cores beside each GPU")
    arguments.add_argument("--price", type=float, default=3.0, help="of a GPU hour, in any currency")
    options = arguments.parse_args()
    speeds = Speeds(
        options.captioner_mfu * options.peak * 1e12,
        options.retriever_mfu * options.peak * 1e12,
        options.float32_mfu * options.peak_float32 * 1e12,
    )
    experiment, once, page = load_experiment(EXPERIMENT), Counted(), Console(width=120)
    work = work_of_members(experiment, once, speeds)
    page.print(table_of_members(experiment, work))
    audio_s = audio_seconds(CLIPS) + VALIDATION_CLIPS * SECONDS["clotho"]  # and test, of as many clips
    prepare = Prepare(once.codec_flops() * audio_s / speeds.float32, decoding_seconds() * audio_s)
    search_s = once.search_flops(experiment) / (options.generation_mfu * options.peak * 1e12)
    page.print(
        f"\nprepare: {audio_s / 3600:,.0f} h of audio at most: {prepare.gpu_s / 3600:.1f} GPU hours, and "
        f"{prepare.core_s / 3600:.0f} hours of a CPU core to decode and resample (measured here)\n"
        f"search: {experiment.search.trials} settings, {search_s / 3600:.1f} GPU hours\n"
    )
    cluster = Cluster(prepare, search_s, options.cpus)
    times = {gpus: cluster.times(gpus, experiment, work) for gpus in WORKERS}
    page.print(table_of_clusters(times, options.price))
    hours = {gpus: one.total_s / 3600 for gpus, one in times.items()}
    show({f"hours_on_{gpus}_gpus": claim(hours[gpus], hours[1], None, "h", less=True) for gpus in (8, 64)})


@dataclass(frozen=True)
class Speeds:
    """Floating-point operations that a GPU makes in a second."""

    captioner: float  # in training, bfloat16
    retriever: float  # in training, bfloat16
    float32: float  # of codec and embeddings

    def of(self, member: AnyMember) -> float:
        """Return that of a member's training."""
        return self.retriever if isinstance(member, RetrieverMember) else self.captioner


@dataclass(frozen=True)
class Work:
    """What training a member takes."""

    each: float  # operations of a clip in a training step
    steps: float  # of all steps
    steps_s: float  # seconds of one GPU for these, and for a retriever's embeddings: workers share them
    alone_s: float  # what more workers do not divide: validation


@dataclass(frozen=True)
class Prepare:
    """What preparing all corpora takes."""

    gpu_s: float  # of one GPU that encodes
    core_s: float  # of one CPU core that decodes and resamples


@dataclass(frozen=True)
class Times:
    """Seconds on a number of GPUs."""

    prepare_s: float
    train_s: float
    longest_path_s: float
    search_s: float

    @property
    def total_s(self) -> float:
        """Return those of all jobs."""
        return self.prepare_s + self.train_s + self.search_s


@dataclass(frozen=True)
class Cluster:
    """GPUs of one speed, and what does not depend on their number."""

    prepare: Prepare
    search_s: float  # on one GPU
    cpus: float  # cores beside each GPU

    def times(self, gpus: int, experiment: Experiment, work: dict[str, Work]) -> Times:
        """Return the seconds on some GPUs."""
        pretraining = [name for name in experiment.members if name.endswith("-pretrained")]
        run = load_experiment(EXPERIMENT, [f"members.{name}.resources.workers={WORKERS[gpus]}" for name in pretraining])
        seconds = {}
        for name, member in run.members.items():
            seconds[name] = START_UP_S + work[name].steps_s / member.resources.min_workers + work[name].alone_s
        train_s = max(timetable(run, seconds, {"GPU": gpus, "CPU": self.cpus * gpus}).values())
        # readers feed encoders: the slower of the two sets the time
        prepare_s = max(self.prepare.gpu_s, self.prepare.core_s / self.cpus) / gpus
        return Times(prepare_s, train_s, critical_path(run, seconds), self.search_s / gpus)


def work_of_members(experiment: Experiment, once: Counted, speeds: Speeds) -> dict[str, Work]:
    """Return the work of each member."""
    work = {}
    for name, member in experiment.members.items():
        forward, epochs = once.flops(member), member.epochs
        each = forward * (STEP + bool(getattr(member, "gradient_cache", None)))
        embeddings = once.embedding_flops(member) * audio_seconds(corpora_of_readers(experiment, name))
        steps, validation = each * clips_of(experiment, name) * epochs, forward * VALIDATION_CLIPS * max(1, epochs)
        speed = speeds.of(member)
        work[name] = Work(each, steps, steps / speed + embeddings / speeds.float32, validation / speed)
    return work


def table_of_members(experiment: Experiment, work: dict[str, Work]) -> Table:
    """Return a row for each member, with its hours on one GPU."""
    table = Table("member", "GFLOP per clip", "clips per epoch", "steps", "PFLOP", "GPU hours", box=None)
    for name, member in experiment.members.items():
        clips, own, training = clips_of(experiment, name), work[name], member.training
        steps = clips // training.batch_size * training.epochs if training else 0
        hours = (own.steps_s + own.alone_s) / 3600
        shown = (f"{own.each / 1e9:.0f}", f"{clips:,}", f"{steps:,}", f"{own.steps / 1e15:,.0f}", f"{hours:.1f}")
        table.add_row(name, *shown)
    return table


def table_of_clusters(times: dict[int, Times], price: float) -> Table:
    """Return a row for each number of GPUs; `price` is that of a GPU hour."""
    table = Table("GPUs", "workers of a pretraining", "prepare", "train", "longest path", "search", box=None)
    for column in ("in total", "GPU hours paid", "cost"):
        table.add_column(column)
    for gpus, one in times.items():
        paid = one.total_s * gpus / 3600
        hours = (
            f"{s / 3600:.2f} h" for s in (one.prepare_s, one.train_s, one.longest_path_s, one.search_s, one.total_s)
        )
        table.add_row(str(gpus), str(WORKERS[gpus]), *hours, f"{paid:.0f}", f"{paid * price:,.0f}")
    return table


class Counted:
    """Floating-point operations of models, each counted once."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def flops(self, member: AnyMember) -> float:
        """Return those of one clip (of a fluency detector: one text) forward."""
        if isinstance(member, RetrieverMember):
            # 22.5 s where clips are not cut to 10 s
            frames = min(member.audio_encoder.max_frames or 10**9, int(SECONDS["clotho"] * 100))
            key = f"{member.text_encoder.name} {frames}"
            return self._once(key, lambda: retriever_flops(member, frames))
        if isinstance(member, CaptionerMember):
            key = f"{member.language_model} {member.captions_per_clip}"
            return self._once(key, lambda: captioner_flops(member))
        return self._once("fluency", lambda: fluency_flops(member.text_encoder))

    def embedding_flops(self, member: AnyMember) -> float:
        """Return those of a second of audio that a retriever embeds; of other members none."""
        return self._once("embedding", lambda: embedding_flops(member)) if isinstance(member, RetrieverMember) else 0.0

    def search_flops(self, experiment: Experiment) -> float:
        """Return those of drawing and scoring the candidates of all validation clips, for every setting."""
        drawn, members = 0.0, experiment.ensemble().values()
        for member in members:
            if isinstance(member, CaptionerMember):
                key = f"{member.language_model} {experiment.sampling.candidates} candidates"
                drawn += self._once(key, lambda: generation_flops(member, experiment.sampling.candidates))  # noqa: B023
        texts = experiment.sampling.candidates * len(experiment.of_kind("captioner"))
        readers = len(experiment.of_kind("retriever")) + len(experiment.of_kind("fluency-detector"))
        fluency = next(member for member in members if isinstance(member, FluencyDetectorMember))
        return (drawn + texts * readers * self.flops(fluency)) * VALIDATION_CLIPS * experiment.search.trials

    def codec_flops(self) -> float:
        """Return those of encoding a second of audio with DAC at 44.1 kHz, of Descript's default sizes."""
        model, audio = dac.DAC().eval(), torch.zeros(1, 1, 44_032)
        return self._once("codec", lambda: count(lambda: model.encode(audio)))

    def _once(self, key: str, counted: Callable[[], float]) -> float:
        if key not in self._known:
            self._known[key] = counted()
        return self._known[key]


def count(forward: Callable[[], object]) -> float:
    """Return the floating-point operations of a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward()
    return float(counter.get_total_flops())


def retriever_flops(member: RetrieverMember, frames: int) -> float:
    """Return the operations of one pair: half of those of two."""
    model = retriever(member)
    log_mel, lengths = torch.randn(2, frames, model.config.log_mel.n_mels), torch.tensor([frames, frames])
    return count(lambda: model(log_mel, lengths, [CAPTION, CAPTION[::-1]], torch.arange(2))) / 2


def embedding_flops(member: RetrieverMember) -> float:
    """Return the operations of a second of audio: a tenth of those of ten seconds."""
    model = retriever(member).eval()
    log_mel = torch.randn(1, 1000, model.config.log_mel.n_mels)
    return count(lambda: model.embed_audio(log_mel, torch.tensor([1000]))) / 10


def retriever(member: RetrieverMember) -> Retriever:
    """Return the model of a member at its published size, with random weights."""
    config = member.convert(
        RetrieverConfig,
        audio_encoder=member.audio_encoder.model_copy(update={"checkpoint": None}),
        text_encoder=of_published_size(member.text_encoder),
        log_mel={},
    )
    return Retriever.create(config, [CAPTION]).train()


def captioner_flops(member: CaptionerMember) -> float:
    """Return the operations of a clip that fills all positions."""
    model = captioner(member)
    codes, lengths = model.pad_codes([np.zeros((FRAMES, 9), np.int16)])
    captions = [[CAPTION] * member.captions_per_clip]
    return count(lambda: model(codes, lengths, torch.randn(1, 1024), captions))


def generation_flops(member: CaptionerMember, candidates: int) -> float:
    """Return the operations of a clip's candidates: one pass of the encoder, and the decoder's over their tokens."""
    model = captioner(member).eval()
    codes, lengths = model.pad_codes([np.zeros((FRAMES, 9), np.int16)])

    def generate() -> None:
        states, mask = model.encode(codes, lengths, torch.randn(1, 1024))
        model.log_likelihood(states.expand(candidates, -1, -1), mask.expand(candidates, -1), [CAPTION] * candidates)

    return count(generate)


def captioner(member: CaptionerMember, attention: str = "eager") -> Captioner:
    """Return the model of a member at its published size, with random weights.

    Args:
        attention: by default by matrix products, which can be counted.
    """
    shapes = {"codebooks": 9, "codebook_size": 1024, "audio_embedding_dim": 1024}
    config = member.convert(CaptionerConfig, attn_implementation=attention, **shapes)
    architecture = published_architecture(member.language_model)
    bart = AutoModelForSeq2SeqLM.from_config(architecture, attn_implementation=attention)
    return Captioner(config, bart, train_tokenizer("bpe", [CAPTION], 400)).train()


def fluency_flops(text_encoder: TextEncoderConfig) -> float:
    """Return the operations of one text."""
    config = FluencyDetectorConfig(text_encoder=of_published_size(text_encoder))
    model = FluencyDetector.create(config, [CAPTION]).train()
    return count(lambda: model([CAPTION], torch.ones(1)))


def of_published_size(config: TextEncoderConfig) -> TextEncoderConfig:
    """Return a text encoder with random weights; looking up its vocabulary costs no operations."""
    sizes = {key: size for key, size in LANGUAGE_MODELS[config.name].items() if key not in ("model_type", "vocab_size")}
    kind = LANGUAGE_MODELS[config.name]["model_type"]
    found: dict[str, Any] = {"name": f"random:{kind}", "sizes": sizes, "pooling": "cls", "vocab_size": 400}
    return TextEncoderConfig(**found)


def decoding_seconds(clips: int = 12, duration_s: float = 10.0) -> float:
    """Measure the seconds of one core that a second of audio takes to decode and resample, at both sample rates.

    FLAC at 32 kHz, as WavCaps has it; the median of some clips of noise, which compress little.
    """
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.flac"
        noise = np.random.default_rng(0).normal(size=int(32_000 * duration_s)) * 0.1
        soundfile.write(path, noise.clip(-1, 1), 32_000)
        for _ in range(clips):
            start = time.process_time()
            for rate in (44_100, LogMelConfig().sample_rate):
                load_clip(path, rate)
            taken.append((time.process_time() - start) / duration_s)
    return statistics.median(taken[1:])


def corpora_of_readers(experiment: Experiment, retriever: str) -> list[str]:
    """Return the corpora that a retriever's captioners train on."""
    readers = [name for name, member in experiment.members.items() if retriever in member.retrievers()]
    return sorted({corpus for name in readers for corpus in experiment.training_corpora(name)})


def clips_of(experiment: Experiment, name: str) -> int:
    """Return the clips of an epoch; for a fluency detector every caption, intact and damaged."""
    corpora = experiment.training_corpora(name)
    if experiment.members[name].kind == "fluency-detector":
        return 2 * sum(CAPTIONS[corpus] for corpus in corpora)
    return sum(CLIPS[corpus] for corpus in corpora)


def audio_seconds(corpora: Iterable[str]) -> float:
    """Return the seconds of audio of the corpora's training splits, and of Clotho's validation split."""
    return sum(CLIPS[corpus] * SECONDS[corpus] for corpus in corpora) + VALIDATION_CLIPS * SECONDS["clotho"]


if __name__ == "__main__":
    main()

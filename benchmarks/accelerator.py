"""What one GPU does with the models of experiments/dcase2024.yaml, at their published sizes with random weights.

    python benchmarks/accelerator.py [KEY=VALUE ...] [--only training|inference] [--clips 64] [--device cuda]

Training: steps on the largest batch of a worker, as the experiment has it: forward, backward, clipped gradients and
AdamW, in the experiment's precision, on clips that are as long as they can be. A retriever with `gradient_cache` goes
through its batch in parts and twice, as in training. Of a pretraining one worker's share of the batch is taken, without
the exchange of gradients; reading features is not part of it (benchmarks/loader.py).

Inference, as the jobs call it: codes of DAC at 44.1 kHz and audio embeddings of clips of 30 s, both in float32;
the experiment's candidates and searched caption of each captioner, for clips that fill BART's positions, all of them as
long as they may be, since random weights end no caption; embeddings and fluency of captions.

`peak` is the share of the GPU's dense bfloat16 operations in a second, by its data sheet, that is reached: a training
step counts as three forward passes, with gradient cache as four. `memory` is the most that PyTorch had allocated (in
inference with the models that were measured before), and `planned` what `enclap train --plan` says; the claims compare
the two, the smaller to the larger. The shares are what `python benchmarks/cost.py` takes as options. KEY=VALUE
overrides the experiment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import dac
import numpy as np
import torch
from claims import Claims, add_device, claim, finish_device, parser, show
from cost import CAPTION, EXPERIMENT, FRAMES, captioner, count, of_published_size, retriever
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from models.codec.dac import DacCodec
from models.device import device_name
from models.fluency.detector import FluencyDetector
from models.generation.candidates import Decoding
from models.generation.proposals import ClipInputs, propose
from models.settings import FluencyDetectorConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import CaptionerMember, FluencyDetectorMember, RetrieverMember
from ray_jobs.training.memory import layout, task_of, worker_memory
from ray_jobs.training.step_meter import FORWARDS, peak_flops

# One of each kind and size, with the overrides that make its batch one worker's share.
TRAINED = ["retriever-bge-pretrained", "retriever-bge", "captioner-base-pretrained", "captioner-large-pretrained",
           "captioner-base", "captioner-large"]  # fmt: skip
ONE_WORKER = ["members.*-pretrained.resources.workers=1", "members.*-pretrained.training.batch_size=64"]
TARGET = 0.75  # of planned and measured memory, the smaller to the larger
DURATION_S = 30


@dataclass(frozen=True)
class Measured:
    """A row of the table."""

    what: str
    clips: float  # that are done in `seconds`; of texts, captions
    seconds: float
    operations: float
    memory: int  # the most that was allocated, in bytes
    planned: int | None = None  # of it, in bytes

    def shown(self, peak: float | None) -> tuple[str, ...]:
        """Return the cells of its row."""
        reached = self.operations / self.seconds
        share = f"{reached / peak:.1%}" if peak else "-"
        planned = f"{self.planned / 2**30:.1f}" if self.planned else "-"
        speed, memory = f"{self.clips / self.seconds:,.1f}", f"{self.memory / 2**30:.1f}"
        return self.what, speed, f"{self.seconds * 1e3:,.0f}", f"{reached / 1e12:.1f}", share, memory, planned


def measure(call: Callable[[], object], seconds: float, device: torch.device) -> tuple[float, int]:
    """Return the seconds of a call, repeated for a while after two to warm up, and the most memory it allocates."""
    for _ in range(2):
        call()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    finish_device()
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < seconds:
        call()
        finish_device()
        calls += 1
    taken = (time.perf_counter() - start) / calls
    return taken, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


class TrainingStep:
    """A member's model with random weights and its optimizer; a call makes one step."""

    def __init__(self, experiment: Experiment, name: str, device: torch.device) -> None:
        member = experiment.members[name]
        assert member.training
        self.experiment, self.member, self.device = experiment, member, device
        self.clips = task_of(member).clips_at_once(member)
        self.precision, self.clip_norm = member.training.precision, member.training.clip_norm
        self.model: Any = layout(experiment, name).to_empty(device=device).train()
        fill(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-5)

    def loss(self) -> Tensor:
        """Run a forward pass of the largest batch."""
        member, device = self.member, self.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            if isinstance(member, RetrieverMember):
                frames = member.audio_encoder.max_frames or DURATION_S * 100
                log_mel = torch.randn(self.clips, frames, self.experiment.features.log_mel.n_mels, device=device)
                lengths, texts = torch.full((self.clips,), frames), distinct_captions(self.clips)
                loss: Tensor = self.model(log_mel, lengths, texts, chunk_size=member.gradient_cache)
                return loss
            with device:  # on which it makes its inputs
                return task_of(member).example_step(self.model, self.experiment, member)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Draw weights about as models are initialised: factors of normalisations are 1, and so are variances."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.ndim > 1 and tensor.is_floating_point():
            tensor.normal_(0, 0.02)
        else:
            tensor.fill_(1 if name.endswith(("weight", "gamma", "running_var")) else 0)


def distinct_captions(number: int) -> list[str]:
    """Return captions of about the same length."""
    return [f"{CAPTION} {row}" for row in range(number)]


def trainings(experiment: Experiment, seconds: float, device: torch.device) -> Iterator[Measured]:
    """Measure a training step of each member of TRAINED."""
    for name in TRAINED:
        planned = worker_memory(experiment, name)
        assert planned
        step = TrainingStep(experiment, name, device)
        passes = FORWARDS + bool(getattr(step.member, "gradient_cache", None))
        taken, memory = measure(step, seconds, device)
        yield Measured(f"step of {name}", step.clips, taken, passes * count(step.loss), memory, planned.total)


def inferences(
    experiment: Experiment, clips: int, captions: int, seconds: float, device: torch.device
) -> Iterator[Measured]:
    """Measure what `prepare`, `train` and `search` do without gradients."""
    rng, texts = np.random.default_rng(0), distinct_captions(captions)

    def row(what: str, number: int, call: Callable[[], object]) -> Measured:
        taken, memory = measure(call, seconds, device)
        return Measured(what, number, taken, count(call), memory)

    codec = DacCodec.from_dac(dac.DAC()).to(device)
    sounds = [rng.normal(0, 0.1, DURATION_S * codec.sample_rate).astype(np.float32) for _ in range(clips)]
    yield row("DAC codes of 30 s", clips, lambda: codec.encode(sounds))

    paired = experiment.members["retriever-bge"]
    assert isinstance(paired, RetrieverMember)
    embedder = retriever(paired).eval().to(device)
    log_mels = [
        rng.normal(-40, 20, (DURATION_S * 100, experiment.features.log_mel.n_mels)).astype(np.float16)
        for _ in range(clips)
    ]
    yield row("audio embeddings of 30 s", clips, lambda: embedder.audio_embeddings(log_mels))
    yield row("caption embeddings", captions, lambda: embedder.text_embeddings(texts))

    judge = experiment.members["fluency"]
    assert isinstance(judge, FluencyDetectorMember)
    config = FluencyDetectorConfig(text_encoder=of_published_size(judge.text_encoder))
    detector = FluencyDetector.create(config, [CAPTION]).eval().to(device)
    yield row("fluency of captions", captions, lambda: detector.fluency_error(texts))

    decoding = Decoding(experiment.sampling, experiment.beam, seed=0)
    codes = [rng.integers(0, 1024, (FRAMES, 9)).astype(np.int16) for _ in range(clips)]
    embeddings = rng.normal(size=(clips, 1024)).astype(np.float32)
    for name in ("captioner-base", "captioner-large"):
        member = experiment.members[name]
        assert isinstance(member, CaptionerMember)
        one = captioner(member, attention="sdpa").eval().to(device)
        inputs = ClipInputs(codes, {name: embeddings})
        yield row(f"candidates of {name}", clips, partial(propose, {name: one}, inputs, decoding))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the experiment")
    arguments.add_argument("--only", choices=("training", "inference"))
    arguments.add_argument("--clips", type=int, default=64, help="of inference")
    arguments.add_argument("--captions", type=int, default=4096, help="of inference")
    arguments.add_argument("--seconds", type=float, default=5.0, help="that each is repeated for")
    add_device(arguments, "of all models")
    options = arguments.parse_args()
    device = torch.device(options.device)
    experiment = load_experiment(EXPERIMENT, [*ONE_WORKER, *options.overrides])
    peak, rows = peak_flops(device), list[Measured]()
    print(f"{device_name(device)}, torch {torch.__version__}")
    if options.only != "inference":
        rows += told(trainings(experiment, options.seconds, device))
    if options.only != "training":
        rows += told(inferences(experiment, options.clips, options.captions, options.seconds, device))
    table = Table("what", "clips/s", "ms", "TFLOP/s", "peak", "memory, GiB", "planned, GiB", box=None)
    for row in rows:
        table.add_row(*row.shown(peak))
    Console(width=120).print(table)
    if found := claims(rows):
        show(found)


def told(rows: Iterable[Measured]) -> Iterator[Measured]:
    """Yield the rows, and print each as it comes."""
    for row in rows:
        print(f"{row.what}: {row.seconds:.3f} s", flush=True)
        yield row


def claims(rows: list[Measured]) -> Claims:
    """Compare planned and measured memory, where both are known."""
    found: Claims = {}
    for row in rows:
        if row.planned and row.memory:
            compared = claim(row.planned / 2**30, row.memory / 2**30, TARGET, "GiB")
            found[f"memory of a {row.what}"] = {**compared, "ratio": min(compared["ratio"], 1 / compared["ratio"])}
    return found


if __name__ == "__main__":
    main()

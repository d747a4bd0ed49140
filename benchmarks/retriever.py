"""The retriever's loss and metrics against plain code.

    python benchmarks/retriever.py [--rounds 5] [--plot scaling.png] [--device cuda]

`loss_time`, `loss_memory`: the m-LTM loss, forward and backward, of 256 pairs of 1,024 dimensions with a diagonal
metric, on embeddings that match about as well as half-way through training. Baseline: the formulation of the reference
code, pair by pair, so that tensors of 256 x 256 x 1,024 arise, and POT's `ot.sinkhorn` with its own settings (at most
1,000 iterations, threshold 1e-9), which autograd differentiates. Both give the same value and gradient, which is
checked. Memory is the growth of a fresh process's highest resident size in one step, after its inputs and libraries
have been loaded (by a step on 8 pairs), as the kernel counts it (VmHWM, reset before; Linux), or on a GPU as PyTorch
counts what it allocates there.

`metrics`: mAP@10 and recalls of 5,225 captions over 1,045 clips. Baseline: a loop over captions, each sorted by NumPy.

Two tables are printed before: the parts of the loss's time, and the time by batch size.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import ot
import torch
from claims import add_device, claim, in_turns, parser, show
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from models.metrics.retrieval import retrieval_values
from models.retriever.optimal_transport import MahalanobisMetric, m_ltm_loss, pairwise_distance, transport_plan

PAIRS, WIDTH, EPSILON = 256, 1024, 0.03
BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
LARGEST_BASELINE = 256  # of the table: a batch of 1,024 would take 4 GiB a tensor
Step = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=5, help="of each side, taken in turns, after one to warm up")
    arguments.add_argument("--plot", type=Path, help="draw the time by batch size into this file")
    add_device(arguments)
    options = arguments.parse_args()
    device: str = options.device
    check_agreement(device)
    inputs = pairs(PAIRS, device)
    ours, baseline = in_turns([lambda: our_step(*inputs), lambda: plain_step(*inputs)], options.rounds)
    claims = {"loss_time": claim(ours, baseline, 15, "s", less=True)}
    claims["loss_memory"] = claim(peak_mib(our_step, device), peak_mib(plain_step, device), 50, "MiB", less=True)
    similarity, target = ranking()
    assert retrieval_values(similarity, target).corpus == plain_metrics(similarity, target)
    ours, baseline = in_turns(
        [lambda: retrieval_values(similarity, target), lambda: plain_metrics(similarity, target)], options.rounds
    )
    claims["metrics"] = claim(ours, baseline, 20, "s", less=True)
    print_parts(options.rounds, device)
    print_scaling(options.plot, device)
    show(claims)


# --- loss ----------------------------------------------------------------------------------------------------------


def pairs(number: int, device: str) -> tuple[Tensor, Tensor]:
    """Return unit embeddings of pairs; the loss of 256 is 5.7, between 5.5 (log B) and 11.1."""
    rng = torch.Generator().manual_seed(0)
    audio = torch.randn(number, WIDTH, generator=rng)
    text = audio + 2 * torch.randn(number, WIDTH, generator=rng)
    audio, text = (normalize(rows, dim=-1).to(device) for rows in (audio, text))
    return audio.requires_grad_(), text.requires_grad_()


def our_step(audio: Tensor, text: Tensor, form: str = "diagonal") -> Tensor:
    metric = MahalanobisMetric(WIDTH, form).to(audio.device)
    loss = m_ltm_loss(metric(audio), metric(text), EPSILON)
    loss.backward()
    return loss.detach()


def plain_step(audio: Tensor, text: Tensor) -> Tensor:
    metric = torch.ones(WIDTH, device=audio.device, requires_grad=True)
    difference = audio[:, None] - text[None]
    distance = torch.einsum("ijk,ijk,k->ij", difference, difference, metric).sqrt()
    cost = distance / distance.max()
    uniform = torch.full((len(audio),), 1 / len(audio), device=audio.device)
    plan = ot.sinkhorn(uniform, uniform, cost, EPSILON, numItermax=1000, stopThr=1e-9, warn=False)
    loss = -plan.diagonal().log().mean()
    loss.backward()
    return loss.detach()


def check_agreement(device: str) -> None:
    """Raise AssertionError unless both sides give the same loss and gradient."""
    values, gradients = [], []
    for step in (our_step, plain_step):
        audio, text = pairs(PAIRS, device)
        values.append(step(audio, text))
        assert audio.grad is not None
        gradients.append(audio.grad)
    torch.testing.assert_close(*values, atol=1e-4, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-3 * float(gradients[1].abs().max()), rtol=0)


def peak_mib(step: Step, device: str) -> float:
    """Return the growth of the highest memory in one step of a fresh process: its resident size, or the GPU's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth_of_one, (step, device))


def _growth_of_one(step: Step, device: str) -> float:
    step(*pairs(8, device))
    inputs = pairs(PAIRS, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        step(*inputs)
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _highest_kib()
    step(*inputs)
    return (_highest_kib() - before) / 1024


def _highest_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1])


def print_parts(rounds: int, device: str) -> None:
    """Print what bounds our loss: arithmetic of the matrix products, or memory traffic of the sweeps."""
    audio, text = pairs(PAIRS, device)
    with torch.no_grad():
        cost = pairwise_distance(audio, text)
        cost /= cost.max()
    plan = transport_plan(cost, EPSILON)
    parts = [
        ("whole, metric diagonal", lambda: our_step(audio, text), ""),
        ("whole, metric full", lambda: our_step(audio, text, "full"), ""),
        ("distances, both ways", lambda: pairwise_distance(audio, text).sum().backward(), ""),
        ("plan", lambda: transport_plan(cost, EPSILON), ""),
    ]
    seconds = in_turns([run for _, run, _ in parts], rounds)
    products = 3 * 2 * PAIRS**2 * WIDTH / 1e9
    sweeps = plan.sweeps * 2 * 8 * PAIRS**2 / 1e9
    notes = ["", "", f"{products / seconds[2]:.0f} GFLOP/s of 3 matrix products, {products:.2f} GFLOP"]
    notes.append(f"{plan.sweeps} sweeps read {sweeps:.2f} GB in float64, {sweeps / seconds[3]:.1f} GB/s")
    print(f"loss of {PAIRS} pairs, {torch.get_num_threads()} threads, on {device}:")
    for (name, _, _), taken, note in zip(parts, seconds, notes, strict=True):
        print(f"{name:>24} {1e3 * taken:7.1f} ms  {note}")


def print_scaling(plot: Path | None, device: str) -> None:
    """Print, and draw if asked to, the time by batch size."""
    print(f"{'pairs':>6} {'ours, s':>10} {'baseline, s':>12}")
    ours, baseline = [], []
    for number in BATCHES:
        inputs = pairs(number, device)
        ours.append(in_turns([lambda: our_step(*inputs)], 1)[0])  # noqa: B023
        if number <= LARGEST_BASELINE:
            baseline.append(in_turns([lambda: plain_step(*inputs)], 1)[0])  # noqa: B023
        print(f"{number:6d} {ours[-1]:10.4f} " + (f"{baseline[-1]:12.4f}" if number <= LARGEST_BASELINE else ""))
    if plot:
        figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
        axes.loglog(BATCHES, ours, marker="o", label="ours")
        axes.loglog(BATCHES[: len(baseline)], baseline, marker="s", label="pair by pair, unrolled")
        axes.set(xlabel="pairs in the batch", ylabel="s, forward and backward", title=f"m-LTM loss, D = {WIDTH}")
        axes.legend()
        figure.savefig(plot, dpi=150)


# --- metrics -------------------------------------------------------------------------------------------------------


def ranking() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return similarities [5225, 1045], and the right clip of each caption."""
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(1045), 5)
    similarity = rng.normal(size=(len(target), 1045)).astype(np.float32)
    similarity[np.arange(len(target)), target] += 2
    return similarity, target


def plain_metrics(similarity: NDArray[np.float32], target: NDArray[np.int64]) -> dict[str, float]:
    ranks = []
    for row, right in zip(similarity, target, strict=True):
        rank = int(np.flatnonzero(np.argsort(-row) == right)[0]) + 1
        ranks.append(rank)
    precision = {f"map@{k}": float(np.mean([1 / rank if rank <= k else 0.0 for rank in ranks])) for k in (10, 16)}
    recalls = {f"r@{k}": float(np.mean([rank <= k for rank in ranks])) for k in (1, 5, 10)}
    return {**precision, **recalls, "median_rank": float(np.median(ranks))}


if __name__ == "__main__":
    main()

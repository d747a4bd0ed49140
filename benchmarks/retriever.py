"""The retriever's loss and metrics against plain code.

    python benchmarks/retriever.py [--rounds 3] [--plot scaling.png]

`loss_time`, `loss_memory`: the m-LTM loss, forward and backward, of 256 pairs of 1,024 numbers with a diagonal metric.
Baseline: the formulation of the reference code, pair by pair, so that tensors of 256 x 256 x 1,024 arise, and POT's
`ot.sinkhorn` with its own settings (1,000 iterations at most, threshold 1e-9), through which autograd goes back. Memory
is the growth of the highest resident size of a process of its own, over what it has when its inputs are there.

`metrics`: mAP@10 and recalls of 5,225 captions over 1,045 clips. Baseline: a loop over captions that sorts each row.

The loss is also timed for batches of 64 to 4,096 pairs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import ot
import torch
from claims import claim, show
from torch import Tensor
from torch.nn.functional import normalize

from models.optimal_transport import MahalanobisMetric, m_ltm_loss
from models.retrieval_metrics import retrieval_values

PAIRS, WIDTH, EPSILON = 256, 1024, 0.03
BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="draw the scaling curve into this file")
    options = parser.parse_args()
    ours, baseline = in_turns([lambda: ours_step(*pairs(PAIRS)), lambda: plain_step(*pairs(PAIRS))], options.rounds)
    claims = {"loss_time": claim(ours, baseline, 15, "s", less=True)}
    claims["loss_memory"] = claim(peak_mib(ours_step), peak_mib(plain_step), 50, "MiB", less=True)
    similarity, target = ranking()
    ours, baseline = in_turns(
        [lambda: retrieval_values(similarity, target), lambda: plain_metrics(similarity, target)], options.rounds
    )
    claims["metrics"] = claim(ours, baseline, 20, "s", less=True)
    scaling(options.plot)
    show(claims)


# --- loss ----------------------------------------------------------------------------------------------------------


def pairs(number: int) -> tuple[Tensor, Tensor]:
    """Embeddings of pairs that match about as well as half-way through training."""
    rng = torch.Generator().manual_seed(0)
    audio = torch.randn(number, WIDTH, generator=rng)
    text = audio + 2 * torch.randn(number, WIDTH, generator=rng)
    return normalize(audio, dim=-1).requires_grad_(), normalize(text, dim=-1).requires_grad_()


def ours_step(audio: Tensor, text: Tensor) -> None:
    metric = MahalanobisMetric(WIDTH, "diagonal")
    m_ltm_loss(metric(audio), metric(text), EPSILON).backward()


def plain_step(audio: Tensor, text: Tensor) -> None:
    metric = torch.ones(WIDTH, requires_grad=True)
    difference = audio[:, None] - text[None]
    distance = torch.einsum("ijk,ijk,k->ij", difference, difference, metric).sqrt()
    cost = distance / distance.max()
    uniform = torch.full((len(audio),), 1 / len(audio))
    plan = ot.sinkhorn(uniform, uniform, cost, EPSILON, numItermax=1000, stopThr=1e-9, warn=False)
    (-plan.diagonal().log().mean()).backward()


def peak_mib(step: Callable[[Tensor, Tensor], None]) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_one, (step,))


def _peak_of_one(step: Callable[[Tensor, Tensor], None]) -> float:
    # What the first call of the libraries takes, on a batch that is too small to matter.
    step(*pairs(4))
    inputs = pairs(PAIRS)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the highest size so far
    before = _memory_kib("VmRSS")
    step(*inputs)
    return max(_memory_kib("VmHWM") - before, 1) / 1024


def _memory_kib(field: str) -> int:
    """Of this process, as Linux counts it: VmRSS what is resident, VmHWM the most that was."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def scaling(plot: Path | None) -> None:
    """Seconds of the loss by batch size, and the share of its one matrix product each way."""
    print(f"{'pairs':>6} {'s':>8} {'distances alone':>16}")
    seconds = []
    for number in BATCHES:
        inputs = pairs(number)
        step, product = in_turns([lambda: ours_step(*inputs), lambda: _distances(*inputs)], 1)  # noqa: B023
        seconds.append(step)
        print(f"{number:6d} {step:8.3f} {product:16.3f}")
    if plot:
        figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
        axes.loglog(BATCHES, seconds, marker="o")
        axes.set(xlabel="pairs in the batch", ylabel="s, forward and backward", title=f"m-LTM loss, D = {WIDTH}")
        figure.savefig(plot, dpi=150)


def _distances(audio: Tensor, text: Tensor) -> None:
    metric = MahalanobisMetric(WIDTH, "diagonal")
    (metric(audio) @ metric(text).T).sum().backward()


# --- metrics -------------------------------------------------------------------------------------------------------


def ranking() -> tuple[np.ndarray, np.ndarray]:
    """Similarity [5225, 1045], and the right clip of each caption."""
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(1045), 5)
    similarity = rng.normal(size=(len(target), 1045)).astype(np.float32)
    similarity[np.arange(len(target)), target] += 2
    return similarity, target


def plain_metrics(similarity: np.ndarray, target: np.ndarray) -> dict[str, float]:
    precision, ranks = [], []
    for row, right in zip(similarity, target, strict=True):
        order = sorted(range(len(row)), key=lambda clip: -row[clip])
        rank = order.index(right) + 1
        ranks.append(rank)
        precision.append(1 / rank if rank <= 10 else 0.0)
    recalls = {f"r@{k}": statistics.mean(rank <= k for rank in ranks) for k in (1, 5, 10)}
    return {"map@10": statistics.mean(precision), **recalls, "median_rank": statistics.median(ranks)}


def in_turns(sides: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each side, after one call each that does not count."""
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        for side, seconds in zip(sides, taken, strict=True):
            start = time.perf_counter()
            side()
            if number:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(one) for one in taken]


if __name__ == "__main__":
    main()

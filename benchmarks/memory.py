"""The memory that `enclap train --plan` estimates of a training step, against what a real step takes at its peak.

    python benchmarks/memory.py

Ours is the estimate of weights, gradients, AdamW's state and activations; the baseline is measured: by how much a fresh
process grows at most while it builds the model of the same size with random weights and makes one step on the largest
batch. The ratio is that of the smaller to the larger, and the claim is 0.75 or more: the estimate is within 25 %.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import torch
from claims import Claims, claim, parser, show

from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.training.memory import layout, task_of, worker_memory

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "dcase2024.yaml"
MEMBERS = {"captioner-base": "members.captioner-base.training.batch_size=4",
           "retriever-bge": "members.retriever-bge.gradient_cache=4",
           "fluency": "members.fluency={kind: fluency-detector, text_encoder: bert-base-uncased, training: {epochs: 3, "
                      "batch_size: 64, learning_rate: 2e-5}}"}  # fmt: skip
PRECISIONS = ("float32", "bfloat16")
TARGET = 0.75


def experiment_of(name: str, precision: str) -> Experiment:
    """Return the published recipe with a batch of a member that a small machine holds."""
    return load_experiment(EXPERIMENT, [MEMBERS[name], f"members.{name}.training.precision={precision}"])


def make_step(name: str, precision: str) -> None:
    """Make one real step, and print by how many bytes this process grew at its peak."""
    experiment = experiment_of(name, precision)
    member, empty = experiment.members[name], layout(experiment, name)
    warm_up()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = empty.to_empty(device="cpu").train()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_() if not tensor.is_floating_point() else tensor.normal_(0, 0.02)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    for _ in range(2):  # AdamW's state is there from the second on
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = task_of(member).example_step(model, experiment, member).float().sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def warm_up() -> None:
    """Make a step of a tiny model: what torch imports and sets up for it is no memory of the model."""
    layer = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(2, 8)).sum().backward()
    optimizer.step()


def measured(name: str, precision: str) -> int:
    """Return what `make_step` prints in a process of its own."""
    command = [sys.executable, __file__, "--step", name, "--precision", precision]
    # so that memory that is freed goes back to the system: what the process holds then is what lives
    allocator = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | allocator)
    return int(done.stdout.split()[-1])


def claims() -> Claims:
    """Compare estimate and measurement of each kind of member in each precision."""
    found: Claims = {}
    for name in MEMBERS:
        for precision in PRECISIONS:
            memory = worker_memory(experiment_of(name, precision), name)
            assert memory
            real = measured(name, precision)
            row = claim(memory.total / 2**30, real / 2**30, TARGET, "GiB")
            found[f"{name} {precision}"] = {**row, "ratio": min(row["ratio"], 1 / row["ratio"])}
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--step", choices=MEMBERS, help="internal: make one step of a member")
    arguments.add_argument("--precision", choices=PRECISIONS, help="internal: of --step")
    options = arguments.parse_args()
    if options.step:
        make_step(options.step, options.precision)
    else:
        show(claims())


if __name__ == "__main__":
    main()

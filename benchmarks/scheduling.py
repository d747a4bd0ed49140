"""64 members on 16 nodes: the makespan of `train` against a bound that no schedule can beat.

    python benchmarks/scheduling.py [--nodes 16] [--start-up 20] [--epoch 2] [--one-node]

The scheduling loop is that of `ray_jobs.train`, on a real Ray cluster with that many nodes on this machine
(ray.cluster_utils), each with 4 GPUs and 32 CPUs that exist in name only. It starts a stand-in for a trainer, which
takes the placement group that Ray Train would take, one bundle per worker, sleeps `start_up` and then `epoch` seconds
for each of the member's epochs, and returns the group. 64 real TorchTrainers need several hundred processes that import
torch; two cores would take hours to start these. `--one-node` puts all resources on one node.

The members are sixteen chains as in experiments/dcase2024.yaml (retriever pretrained on 4 GPUs, finetuned on 1;
captioner pretrained on 8, finetuned on 2), with epochs drawn from a seed.

`makespan`: ours is measured, from the first member's start to the last one's end; the baseline is the larger of the
graph's longest path and its GPU seconds over the cluster's GPUs. Start-up counts in both, and is printed apart. The
ratio is baseline / ours: 1 is perfect, and the target of 1 / 1.15 allows 15 % more than that. `driver_cpu`: CPU time of
the driver's process in percent of one core, against the 5 % that it may take.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil
import ray
from claims import Claims, claim, parser, show
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group
from timetable import critical_path, timetable, work_bound

from ray_jobs.experiment.config import Experiment
from ray_jobs.run.directory import RunDirectory
from ray_jobs.train import train_members
from ray_jobs.training.job import TrainingRequest
from ray_jobs.training.trainer import this_node

CHAINS, NODE = 16, {"num_cpus": 32, "num_gpus": 4}
TARGET, DRIVER_PERCENT = 1.15, 5.0


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--nodes", type=int, default=16)
    arguments.add_argument("--start-up", type=float, default=20.0, help="seconds of a trainer before its first step")
    arguments.add_argument("--epoch", type=float, default=2.0, help="seconds")
    arguments.add_argument("--one-node", action="store_true", help="one node with the resources of all")
    options = arguments.parse_args()
    start = time.monotonic()
    cluster = start_cluster(options.nodes, options.one_node)
    print(f"{options.nodes} nodes were up after {time.monotonic() - start:.0f} s")
    try:
        show(measure(options.start_up, options.epoch))
    finally:
        ray.shutdown()
        cluster.shutdown()


def start_cluster(nodes: int, one_node: bool) -> Cluster:
    """Start a cluster of nodes without a dashboard, and a driver in this process."""
    scale = nodes if one_node else 1
    node = {key: amount * scale for key, amount in NODE.items()} | {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(0 if one_node else nodes - 1):
        cluster.add_node(wait=False, **node)
    cluster.wait_for_nodes(timeout=300)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    return cluster


def measure(start_up_s: float, epoch_s: float) -> Claims:
    """Train all members with the stand-in, and return the claims."""
    with tempfile.TemporaryDirectory() as scratch:
        experiment = experiment_of_chains(scratch)
        directory = RunDirectory(experiment)
        directory.checkpoints.mkdir(parents=True)
        seconds = {name: start_up_s + epoch_s * m.epochs for name, m in experiment.members.items()}
        start = stand_in(start_up_s, epoch_s).options(label_selector=this_node()).remote
        process = psutil.Process()
        cpu, began = sum(process.cpu_times()[:2]), time.time()
        failed = train_members(experiment, directory, set(experiment.members), start)
        makespan = time.time() - began
        percent = 100 * (sum(process.cpu_times()[:2]) - cpu) / makespan
        assert not failed, failed
        spans = {path.stem: json.loads(path.read_text()) for path in directory.checkpoints.glob("*.json")}
    resources = {key: amount for key, amount in ray.cluster_resources().items() if key in ("CPU", "GPU")}
    path, work = critical_path(experiment, seconds), work_bound(experiment, seconds, resources)
    bare = critical_path(experiment, dict.fromkeys(seconds, start_up_s))
    planned = max(timetable(experiment, seconds, resources).values())
    waits = sorted(ready - asked for asked, ready, _ in spans.values())
    print(f"{len(seconds)} members, {resources['GPU']:.0f} GPUs in {len(ray.nodes())} nodes")
    print(f"longest path {path:.1f} s, of that start-up {bare:.1f} s; GPU seconds over GPUs {work:.1f} s")
    print(f"the plan, if starting a process took no time: {planned:.1f} s; measured: {makespan:.1f} s")
    print(f"placement groups were ready after {waits[len(waits) // 2]:.2f} s (median), {waits[-1]:.2f} s (longest)")
    return {
        "makespan": claim(makespan, max(path, work), 1 / TARGET, "s", less=True),
        "driver_cpu": claim(percent, DRIVER_PERCENT, 1.0, "%", less=True),
    }


def stand_in(start_up_s: float, epoch_s: float) -> Any:
    """Return a Ray task that holds the resources of a trainer for as long as a trainer would."""

    @ray.remote(num_cpus=0, max_retries=0)
    def fit(request: TrainingRequest, checkpoints: Path) -> None:
        asked, job = time.time(), request.job
        group = placement_group([job.resources.per_worker()] * job.resources.min_workers, strategy="PACK")
        if not group.wait(600):
            raise RuntimeError(f"{job.name}: no room for its placement group")
        ready = time.time()
        time.sleep(start_up_s + epoch_s * job.training.epochs)
        remove_placement_group(group)
        Path(checkpoints, f"{job.name}.json").write_text(json.dumps([asked, ready, time.time()]))

    return fit


def experiment_of_chains(storage: str) -> Experiment:
    """Return the experiment of sixteen chains; its corpus does not exist."""
    rng = Random(0)
    members: dict[str, Any] = {}

    def add(name: str, workers: int, epochs: tuple[int, int], **settings: Any) -> None:
        training = {"epochs": rng.randint(*epochs), "batch_size": 64, "learning_rate": 1e-3}
        resources = {"workers": workers, "cpus_per_worker": 4, "gpus_per_worker": 1}
        members[name] = {"training": training, "resources": resources, **settings}

    for n in range(CHAINS):
        retriever, captioner = {"kind": "retriever"}, {"kind": "captioner", "audio_embedding": f"retriever-{n}"}
        add(f"retriever-{n}-pretrained", 4, (5, 15), **retriever)
        add(f"retriever-{n}", 1, (5, 25), init_from=f"retriever-{n}-pretrained", **retriever)
        add(f"captioner-{n}-pretrained", 8, (5, 15), **captioner)
        add(f"captioner-{n}", 2, (5, 25), init_from=f"captioner-{n}-pretrained", **captioner)
    corpus = {"kind": "folder", "root": "/nowhere", "splits": ["train", "validation", "test"]}
    return Experiment.model_validate(
        {
            "name": "scheduling",
            "storage_path": storage,
            "corpora": {"sounds": corpus},
            "target_corpus": "sounds",
            "members": members,
        }
    )


if __name__ == "__main__":
    main()

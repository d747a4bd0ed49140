"""Join a Ray cluster, or start Ray on this machine."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from models.console import say
from ray_jobs.experiment.config import ActorResources, ConfigError
from ray_jobs.run.reach import cluster_address, joining
from ray_jobs.run.signals import kept_handlers

if TYPE_CHECKING:
    import torch

# A warning of more processes than CPUs: actors of ours share CPUs, as trainings of small members do.
NO_FAULT = "worker processes have been started"
GPU_SHARE = 0.25  # of a GPU: a process that has one to itself often waits for files and CPU


def gpu_share(asked: float | None) -> float:
    """Return the share of a GPU for an actor or a trial: what was asked for, else 0.25 where the cluster has GPUs."""
    import ray  # not before `connect` has set the variables that Ray reads when it is imported

    if asked is not None:
        return asked
    return GPU_SHARE if ray.cluster_resources().get("GPU") else 0.0


def number_of_actors(resources: ActorResources) -> int:
    """Return the number of actors: those asked for, or as many as fit on the cluster."""
    import ray

    cluster, gpus = ray.cluster_resources(), gpu_share(resources.gpus)
    fit = cluster["GPU"] / gpus if gpus else cluster.get("CPU", 1) / resources.cpus
    return resources.workers or max(1, int(fit))


def check_room(asks: str, each: dict[str, float], autoscaling: bool = False) -> None:
    """Refuse what no node could ever start: Ray would wait for it without end.

    Args:
        asks: who asks, and where that is set, for the message.
        each: what one process takes, by Ray's names of resources.
        autoscaling: whether the cluster adds nodes by itself.

    Raises:
        ConfigError: if it fits on no node, and the cluster does not add nodes by itself.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if autoscaling or any(all(node.get(k, 0.0) >= v for k, v in each.items()) for node in nodes):
        return
    wanted = ", ".join(f"{amount:g} {key}" for key, amount in each.items() if amount)
    most = ", ".join(f"{max(node.get(key, 0.0) for node in nodes):g} {key}" for key, amount in each.items() if amount)
    raise ConfigError(f"{asks} asks for {wanted} on one node, the cluster's nodes have at most {most}; lower it")


def reserved_device() -> torch.device:
    """Return the GPU that Ray reserved for this task or actor, or the CPU if it reserved none.

    In a process that has not joined Ray nobody shares GPUs out: there it is the GPU that the process sees. A GPU that
    this machine's torch cannot use, such as a torch without CUDA, is as good as none.
    """
    import ray

    from models.device import available_device

    found = available_device()
    return found if not ray.is_initialized() or ray.get_gpu_ids() else type(found)("cpu")


@contextmanager
def _telling_long_paths() -> Iterator[None]:
    """Say what to set where Ray's sockets would have longer paths than Linux allows."""
    try:
        yield
    except OSError as error:
        if "AF_UNIX" not in str(error):
            raise
        raise ConfigError(
            f"the temporary directory {tempfile.gettempdir()} has too long a path for Ray's sockets ({error}); set "
            "RAY_TMPDIR to a shorter one, such as /tmp"
        ) from error


def _say_warnings() -> None:
    """Let the cluster's warnings appear as lines about the work do: Ray prints them, in colour, among the results."""
    from ray._private import worker

    worker.print_to_stdstream = _say_warning


def _say_warning(data: dict[str, Any], *_: Any, **__: Any) -> None:
    """Say what the cluster warns of, unless it is no fault."""
    for line in data["lines"]:
        if NO_FAULT not in line:
            say(f"ray: {line}", style="yellow")


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (as it does inside `ray job submit`), or start Ray on this machine.

    Raises:
        ConfigError: nothing answers at that address, or the temporary directory's path is too long for Ray.
    """
    # Tune's newer output prints a banner at any verbosity, and Ray Data's actors a false alarm (ray#53727).
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    address = cluster_address()
    if not address:  # no spot node that may be preempted: each training would start a process that watches for that
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    options: dict[str, Any] = {} if address else {"include_dashboard": False}
    for noisy in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    _say_warnings()
    with joining(address) if address else nullcontext(), _telling_long_paths(), kept_handlers():
        joined = ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    # Ray Data's progress bars would be drawn over our lines.
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources, place = ray.cluster_resources(), address or "this machine"
    dashboard = f", dashboard http://{joined.dashboard_url}" if joined.dashboard_url else ""
    say(f"ray: {place}, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs{dashboard}")

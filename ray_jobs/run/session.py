"""Join a Ray cluster, or start Ray on this machine."""

from __future__ import annotations

import logging
import os
from typing import Any

from ray_jobs.run.console import say

GPU_SHARE = 0.25  # of a GPU: a process alone on one waits for its files and its CPU work much of the time


def gpu_share(asked: float | None) -> float:
    """Return the share of a GPU for an actor or a trial: what was asked for, else 0.25 where the cluster has GPUs."""
    import ray  # `connect` sets variables that Ray reads when it is imported

    if asked is not None:
        return asked
    return GPU_SHARE if ray.cluster_resources().get("GPU") else 0.0


def connect(log_to_driver: bool = False) -> None:
    """Join the cluster that RAY_ADDRESS names (as it does inside `ray job submit`), or start Ray on this machine.

    `log_to_driver` shows what workers print; the jobs whose workers report through an actor leave it off.
    """
    # Tune's newer output prints a banner whatever its verbosity, Ray Data's actors a false alarm (ray#53727).
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {} if address else {"include_dashboard": False}
    for noisy in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    joined = ray.init(address=address or "local", log_to_driver=log_to_driver, logging_level=logging.ERROR, **options)
    # Ray Data's bars would be drawn over our lines.
    ray.data.DataContext.get_current().enable_progress_bars = False
    resources, place = ray.cluster_resources(), address or "this machine"
    dashboard = f", dashboard http://{joined.dashboard_url}" if joined.dashboard_url else ""
    say(f"ray: {place}, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs{dashboard}")

"""List the metrics and the optional parts of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from models.metrics.captions import DEFAULT_METRICS, metric_parts, missing_parts
from ray_jobs.diagnosis.finding import Finding

DRIVER_GPUS = Path("/proc/driver/nvidia/gpus")  # a directory for each GPU of the machine
TRACKERS = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}
EXTRAS = {  # module to its name on PyPI, where that differs or an extra of the package brings it
    "faiss": "faiss-cpu",
    "mlflow": "-e '.[mlflow]'",
    "wandb": "-e '.[wandb]'",
}


def parts_of_this_machine() -> list[Finding]:
    """Return all metrics and optional parts, those that are missing with the command that gets them."""
    library = f"aac-metrics {version('aac-metrics')}"
    metrics = [Finding.of(name, "metric of captions", library, missing_parts(name)) for name in DEFAULT_METRICS]
    of_metrics = [Finding.of(part.name, part.metrics, part.where, part.missing) for part in metric_parts()]
    return [
        *metrics,
        *of_metrics,
        gpu(),
        package("faiss", "search in large indexes"),
        package("optuna", "search.searcher and sweep.searcher: optuna"),
        *(package(module, f"curves of trainings in {name}") for module, name in TRACKERS.items()),
        audio_library(),
        package("av", "reading audio that libsndfile does not know: M4A, WebM, WMA, ..."),
    ]


def gpu() -> Finding:
    """Return the GPUs that torch can use in this process, as Ray's workers on this machine can.

    A GPU that the driver has and torch does not see is told apart from none: Ray would reserve it, and a job compute on
    the CPU.
    """
    import torch

    purpose, driven = "training and inference at full size", driver_gpus()
    if number := torch.cuda.device_count():
        devices = [torch.cuda.get_device_properties(at) for at in range(number)]
        names = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in devices)
        return Finding.of("GPU", purpose, f"{number}: {names}; CUDA {torch.version.cuda}", "")
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return Finding.of("GPU", purpose, "", "hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES")
    if driven and torch.version.cuda is None:
        reason = f"the driver has {driven}, which Ray would reserve; torch {torch.__version__} is built without CUDA"
        return Finding.of("GPU", purpose, "", reason, "pip install --force-reinstall torch torchaudio torchvision")
    if driven:
        reason = f"the driver has {driven}, which Ray would reserve; torch {torch.__version__} sees none"
        return Finding.of("GPU", purpose, "", reason, "nvidia-smi")
    return Finding.of("GPU", purpose, "", "no NVIDIA driver", "use a machine with an NVIDIA GPU and its driver")


def driver_gpus() -> int:
    """Return the number of GPUs that NVIDIA's driver lists."""
    return sum(1 for _ in DRIVER_GPUS.iterdir()) if DRIVER_GPUS.is_dir() else 0


def package(module: str, purpose: str) -> Finding:
    """Return a Python package by its module."""
    if find_spec(module) is None:
        return Finding.of(module, purpose, "", "no such Python package", f"pip install {EXTRAS.get(module, module)}")
    return Finding.of(module, purpose, _version(module), "")


def audio_library() -> Finding:
    """Return the library that decodes audio files; sox and the command ffmpeg are not used."""
    import soundfile

    formats = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name in soundfile.available_formats()]
    found = f"{soundfile.__libsndfile_version__} ({', '.join(formats)})"
    missing = "" if "MP3" in formats else f"{found}, expected MP3 among them"
    return Finding.of("libsndfile", "reading audio files", found, missing, "pip install --upgrade soundfile")


def _version(module: str) -> str:
    """Return the distributions that bring a module, which is there; one that only lies on the path has none."""
    names = dict.fromkeys(_distributions().get(module, []))
    return ", ".join(f"{name} {version(name)}" for name in names) or "of unknown version"


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()

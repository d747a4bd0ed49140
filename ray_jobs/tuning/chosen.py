"""Read what the searches chose: sampling parameters, reranking weights, retrieval weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.settings import SamplingConfig
from ray_jobs.run import storage


def best_sampling(directory: Path) -> SamplingConfig:
    """The sampling parameters found."""
    found = _read_best(directory)
    return SamplingConfig(**{key: found[key] for key in SamplingConfig.model_fields})


def best_reranking(directory: Path) -> Reranking:
    """The reranking weights found."""
    found = _read_best(directory)
    return Reranking(**{key: found[key] for key in Reranking.model_fields})


def best_retrieval(directory: Path) -> RetrievalFusion:
    """The retrieval weights found."""
    found = _read_best(directory)
    return RetrievalFusion(**{key: found[key] for key in RetrievalFusion.model_fields})


def _read_best(directory: Path) -> dict[str, Any]:
    return json.loads(storage.read_text(directory / "best.json"))

"""ensemble/seconds.json: what the systems take, measured by `combine`.

It stands apart from metrics.json, which is the same, byte for byte, whenever an experiment is run again.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ray_jobs.results.best import ColumnCosts
from ray_jobs.results.record import ResultRecord, omitted_when_none
from ray_jobs.run import storage


class SystemSeconds(ResultRecord):
    """The seconds a clip of each system, measured on one batch of test clips, which share its time.

    They leave out what all systems have in common: decoding the file, its codes and log-mels, and loading the models.
    """

    FILE: ClassVar[str] = "seconds.json"
    COMMAND: ClassVar[str] = "combine"

    clips: int
    embedding: dict[str, float]  # by retriever: of its audio
    captioning: dict[str, float]  # by system: proposing and scoring captions, given these embeddings
    retrieval_columns: ColumnCosts | None = omitted_when_none()  # where `search.retrieval_columns` names some

    @classmethod
    def find(cls, ensemble: Path) -> SystemSeconds | None:
        """Read the file of a run's ensemble/; None where an earlier version combined it, which did not write one."""
        return cls.read(ensemble) if storage.exists(ensemble / cls.FILE) else None

"""What crosses the wire to train one member. Light to import: only the workers load the models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from models.settings import LogMelConfig
from ray_jobs.experiment.member_config import AnyMember
from ray_jobs.run import storage


@dataclass(frozen=True)
class MemberJob:
    """Everything a worker needs to train one member; crosses the wire."""

    name: str
    member: AnyMember
    seed: int
    inputs: str
    train: list[Path]
    train_weights: list[float] | None  # each one's share of an epoch; None: every clip once
    validation: list[Path]
    log_mel: LogMelConfig
    output: Path
    edges: dict[str, Path]  # name of each member that this one starts from, and its directory
    experiment: str = ""
    tracking: tuple[str, ...] = ()  # beside TensorBoard

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.output.parent.parent

    def on_this_node(self) -> MemberJob:
        """With the edges' files here; features are pulled by whoever reads them."""
        edges = {name: storage.pull(path) for name, path in self.edges.items()}
        return replace(self, edges=edges, output=storage.here(self.output))

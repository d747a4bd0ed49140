"""Record what a time limit cut, in the marker beside what is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Self

KEY = "cut"  # in a marker


@dataclass(frozen=True)
class Cut:
    """A member or search that a time limit ended early, which stays as it is until the limit is raised or removed."""

    done: int  # epochs of a member, settings of a search
    planned: int
    limit_s: float

    @classmethod
    def of(cls, marker: dict[str, Any]) -> Self | None:
        """Return the cut that a marker records, if any; one that cannot be read stands under no limit."""
        try:
            return cls(**marker[KEY]) if KEY in marker else None
        except TypeError:
            return cls(0, 0, 0.0)

    def stands(self, limit: timedelta | None) -> bool:
        """Return whether what was cut stays as it is under this limit."""
        return limit is not None and limit.total_seconds() <= self.limit_s

    def details(self) -> dict[str, Any]:
        """Return what `mark_done` records of it."""
        return {KEY: asdict(self)}

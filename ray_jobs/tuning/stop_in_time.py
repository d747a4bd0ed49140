"""End a Tune search when its share of the time limit is used."""

from __future__ import annotations

from typing import Any

from ray.tune.stopper import TimeoutStopper

from ray_jobs.results.time_used import time_left
from ray_jobs.run.directory import RunDirectory

SEARCH_SHARE = 0.6  # of the time that is left when the search begins; what follows has the rest


class StopInTime(TimeoutStopper):
    """Stops all trials when the time is up, but not before the first settings were tried to their end.

    Ray keeps its state with the search's, so a search that goes on after an interruption has the rest of its time.

    Args:
        seconds: of working time.
        first: the settings that are tried in any case.
        end: value of `progress` in a trial's last report.
    """

    def __init__(self, seconds: float, first: list[dict[str, Any]], progress: str, end: float) -> None:
        super().__init__(seconds)
        self.first, self.progress, self.end = list(first), progress, end
        self.is_up = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Count a trial of the first settings that has ended; none is stopped by itself."""
        if result[self.progress] >= self.end:
            self.first = [setting for setting in self.first if setting != result["config"]]
        return False

    def stop_all(self) -> bool:
        """Return whether the search ends."""
        self.is_up = self.is_up or bool(super().stop_all())  # which logs a line each time
        return self.is_up and not self.first


def search_seconds(directory: RunDirectory) -> float | None:
    """Return the time of a search that begins now; None without a time limit."""
    left = time_left(directory)
    return None if left is None else SEARCH_SHARE * left

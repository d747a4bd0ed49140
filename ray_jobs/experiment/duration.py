"""Read durations in an experiment file: 8h, 90m, 1h30m, or a number of seconds."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

PARTS = re.compile(r"(\d+d)?((?:\d+(?:\.\d+)?h)?(?:\d+(?:\.\d+)?m)?(?:\d+(?:\.\d+)?s)?)")
UNITS = {"h": 3600, "m": 60}
EXPECTED = "expected a number of seconds above 0, or a duration such as 8h, 90m or 1h30m"


def _as_iso(value: Any) -> Any:
    """Return a duration such as 1d12h in the form that pydantic reads (ISO 8601, P1DT12H); numbers stay seconds."""
    if isinstance(value, bool) or (isinstance(value, int | float) and not 0 < value < math.inf):
        raise ValueError(EXPECTED)
    if not isinstance(value, str) or value.startswith("P"):  # as experiment.yaml has it
        return value
    found = PARTS.fullmatch(value)
    if not value or not found:
        raise ValueError(EXPECTED)
    return f"P{found[1] or ''}T{found[2]}".upper()


Duration = Annotated[timedelta, BeforeValidator(_as_iso), Field(gt=timedelta(0))]


def spell_limit(seconds: float) -> str:
    """Return a duration as an experiment file has it, in the largest unit that gives a whole number."""
    whole = round(seconds)
    return next((f"{whole // size}{unit}" for unit, size in UNITS.items() if whole % size == 0), f"{whole}s")

"""What may vary in drawing candidates."""

from __future__ import annotations

from typing import Any

from ray import tune

SPACE: dict[str, Any] = {
    "temperature": tune.uniform(0.2, 1.0),
    "top_p": tune.uniform(0.7, 1.0),
}

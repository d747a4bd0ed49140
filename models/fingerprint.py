"""Hash what a result depends on, so that a job knows whether it is still up to date."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def fingerprint(*parts: Any) -> str:
    """Return a short hash (16 hex digits) of pydantic models and anything that JSON can hold."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]

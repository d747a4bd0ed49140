"""Tell what is odd in a file of audio that can be used all the same."""

from __future__ import annotations

import logging
from functools import lru_cache

logger = logging.getLogger(__name__)


@lru_cache(maxsize=4096)
def note(text: str) -> None:
    """Log what is odd in a file, once: a file is read for each sample rate."""
    logger.warning("%s", text)

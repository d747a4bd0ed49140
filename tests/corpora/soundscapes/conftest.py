"""Scenes of the built-in corpus."""

from __future__ import annotations

import pytest

from corpora.soundscapes.sampling import sample_scenes
from corpora.soundscapes.scene import Scene
from tests.corpora.soundscapes.scenes import SIZES


@pytest.fixture(scope="session")
def splits() -> dict[str, list[Scene]]:
    return sample_scenes(SIZES, seed=7)

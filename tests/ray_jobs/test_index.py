"""What `enclap index` tells of the files that it adds."""

from pathlib import Path

import numpy as np
import pytest

from models.ensemble.index import AudioIndex
from ray_jobs import index


class Indexed:
    """Stands for an ensemble whose index has 30 files under two retrievers, one of which tells none of them apart."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(30, 8)).astype(np.float32)
        self.audio_index = AudioIndex([str(n) for n in range(30)], {"good": rows, "collapsed": 5 + 0.1 * rows})

    def save_index(self) -> str:
        return "index"


def test_an_index_of_clips_that_are_all_but_alike_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").touch()
    monkeypatch.setattr(index.Ensemble, "load", lambda _: Indexed())
    monkeypatch.setattr(index, "read_in_batches", lambda *_, **__: [])
    index.run(tmp_path, [tmp_path])
    said = [line for line in capsys.readouterr().err.splitlines() if "alike" in line]
    assert len(said) == 1
    assert "index: collapsed: the embeddings of clips are all but alike (mean cosine 1.000" in said[0]

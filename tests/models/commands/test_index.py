"""What `enclap index` tells of the files that it adds."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.commands import index
from models.ensemble import Ensemble
from models.ensemble.index import AudioIndex
from models.retriever.model import Retriever
from models.retriever.optimal_transport import MahalanobisMetric


def retriever(factor: np.ndarray) -> Retriever:
    """Return a retriever of nothing but its metric."""
    made = Retriever.__new__(Retriever)
    torch.nn.Module.__init__(made)
    made.metric = MahalanobisMetric(len(factor))
    made.metric.factor.data = torch.from_numpy(factor).float()
    return made


class Indexed:
    """Stands for an ensemble whose index has 30 files under three retrievers, one of which tells none of them apart.

    The metric of another stretches a direction along which all files lie on one side.
    """

    ask_captioners = False

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        rows = rng.normal(size=(30, 8)).astype(np.float32)
        shifted = rows + np.eye(8, dtype=np.float32)[0]
        self.retrievers = {"good": retriever(np.eye(8)), "collapsed": retriever(np.eye(8))}
        self.retrievers["stretched"] = retriever(np.diag([100.0, *[1.0] * 7]) + 0.5 * np.eye(8, k=1))
        embeddings = {"good": rows, "collapsed": 5 + 0.1 * rows, "stretched": shifted}
        mapped = {name: self.retrievers[name].under_metric(one) for name, one in embeddings.items()}
        self.audio_index = AudioIndex([str(n) for n in range(30)], mapped)

    def save_index(self) -> str:
        return "index"


def test_an_index_of_clips_that_are_all_but_alike_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").touch()
    monkeypatch.setattr(Ensemble, "load", lambda *_, **__: Indexed())
    monkeypatch.setattr(index, "read_in_batches", lambda *_, **__: [])
    index.run(tmp_path, [tmp_path])
    said = [line for line in capsys.readouterr().err.splitlines() if "alike" in line]
    assert len(said) == 1
    assert "index: collapsed: the embeddings of clips are all but alike (mean cosine 1.000" in said[0]

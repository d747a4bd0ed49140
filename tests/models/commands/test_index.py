"""What `enclap index` tells of the files that it adds."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from models.commands import index
from models.ensemble import Ensemble
from models.ensemble.index import AudioIndex
from models.errors import InputError
from models.retriever.model import Retriever
from models.retriever.optimal_transport import MahalanobisMetric
from tests.small_bundle import write_bundle, write_sounds


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
    monkeypatch.setattr(index, "read_manifest", lambda _: None)
    index.run(tmp_path, [tmp_path])
    said = [line for line in capsys.readouterr().err.splitlines() if "alike" in line]
    assert len(said) == 1
    assert "index: collapsed: the embeddings of clips are all but alike (mean cosine 1.000" in said[0]


def test_one_process_at_a_time_adds_files(tmp_path: Path) -> None:
    bundle, sounds = write_bundle(tmp_path / "bundle"), write_sounds(tmp_path / "sounds", 2)
    with FileLock(bundle / index.LOCK), pytest.raises(InputError, match="another `enclap index` is adding files"):
        index.run(bundle, sounds)
    index.run(bundle, sounds)
    assert len(Ensemble.load(bundle, device="cpu").audio_index) == 2


def test_names_that_are_not_unicode_are_indexed_and_links_that_lead_nowhere_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, (sound,) = write_bundle(tmp_path / "bundle"), write_sounds(tmp_path / "sounds", 1)
    odd = Path(os.fsdecode(os.fsencode(sound.parent) + b"/b\xff.wav"))
    sound.rename(odd)
    (sound.parent / "link.wav").symlink_to("nowhere.wav")
    for _ in range(2):
        index.run(bundle, [sound.parent])
    said = capsys.readouterr().err
    assert "link.wav: is a link that leads nowhere" in said
    assert "0 files to add, 1 are there already" in said
    assert Ensemble.load(bundle, device="cpu").audio_index.paths == [str(odd)]

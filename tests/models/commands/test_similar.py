"""`enclap similar`, and what it calls: a recording finds itself, then what its embedding is nearest to."""

from pathlib import Path

import numpy as np
import pytest

from models.commands import similar
from models.commands.options import Searching
from models.ensemble import Ensemble
from models.errors import AudioError, QueryError
from tests.small_bundle import write_bundle, write_sounds


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sounds(tmp_path_factory.mktemp("sounds"), 4)


def test_files_come_in_the_order_of_their_distance_from_the_recording(exported: Path, sounds: list[Path]) -> None:
    ensemble = Ensemble.load(exported, device="cpu")
    ensemble.index(sounds)
    (retriever,) = ensemble.retrievers.values()
    heard = retriever.under_metric(retriever.audio_embeddings([clip.log_mel for clip in ensemble.read(sounds)]))
    distances = np.linalg.norm(heard - heard[2], axis=1)
    found = ensemble.similar(sounds[2], top_k=4)
    assert [match.path for match in found] == [str(sounds[row]) for row in np.argsort(distances)]
    assert found[0].path == str(sounds[2])
    np.testing.assert_allclose([-match.similarity for match in found], np.sort(distances), atol=1e-2)
    assert ensemble.similar(sounds[2].read_bytes(), top_k=1)[0].path == str(sounds[2])


def test_the_command_prints_files_given_and_files_indexed(
    exported: Path, sounds: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    similar.run(exported, sounds[1], Searching(sounds[:3], top_k=2))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].split()[0] == "1"
    assert lines[0].endswith(str(sounds[1]))
    with pytest.raises(QueryError, match="no files are indexed; name files here, or add some with `enclap index"):
        similar.run(exported, sounds[1], Searching([], top_k=2))
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        similar.run(exported, sounds[0].with_name("gone.wav"), Searching(sounds, top_k=2))


def test_without_an_index_there_is_nothing_to_find(exported: Path, sounds: list[Path]) -> None:
    with pytest.raises(QueryError, match="nothing is indexed"):
        Ensemble.load(exported, device="cpu").similar(sounds[0])

"""Which checkpoint a training goes on from where Ray Train's record of them was cut."""

from pathlib import Path

import pytest

from ray_jobs.training.checkpoints import RECORD, WHOLE, find_unrecorded, note_files

NEWEST, BEFORE = "epoch_00001_step_0000002", "epoch_00001_step_0000001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a training with two checkpoints, of which Ray Train knows nothing."""
    for name in (BEFORE, NEWEST, "other"):
        (tmp_path / name / "last").mkdir(parents=True)
        (tmp_path / name / "last" / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "training.pt").write_bytes(b"state")
        note_files(tmp_path / name)
    return tmp_path


def found(folder: Path) -> str | None:
    checkpoint = find_unrecorded(folder)
    return checkpoint and Path(checkpoint.path).name


@pytest.mark.parametrize("record", [None, b"", b'{"checkpoint_results": ['])
def test_the_last_whole_one_where_the_record_is_missing_or_cut(folder: Path, record: bytes | None) -> None:
    if record is not None:
        (folder / RECORD).write_bytes(record)
    assert found(folder) == NEWEST
    assert not (folder / RECORD).exists(), "Ray Train would refuse to go on"


def test_a_record_that_can_be_read_is_ray_trains_own(folder: Path) -> None:
    (folder / RECORD).write_bytes(b"{}")
    assert found(folder) is None
    assert (folder / RECORD).exists()


@pytest.mark.parametrize("damage", ["cut", "missing", "no list", "list cut"])
def test_a_checkpoint_that_is_not_whole_is_passed_over(folder: Path, damage: str) -> None:
    weights, listed = folder / NEWEST / "last" / "model.safetensors", folder / NEWEST / WHOLE
    if damage == "cut":
        weights.write_bytes(b"wei")
    elif damage == "list cut":
        listed.write_bytes(listed.read_bytes()[:9])
    else:
        (weights if damage == "missing" else listed).unlink()
    assert found(folder) == BEFORE


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert find_unrecorded(tmp_path / "none") is None

"""Which files of an index meet conditions."""

from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest

from models.ensemble.filters import Where
from models.ensemble.index_files import FileTable, IndexedFile
from models.errors import InputError

FILES = [
    IndexedFile("/sounds/field/rain 1.wav", 2.0),
    IndexedFile("/sounds/field/deep/rain.flac", 30.0),
    IndexedFile("/sounds/fields/Rain 2.wav"),
    IndexedFile("a name", 4.0),
]


@pytest.mark.parametrize("asked", ["NFC", "NFD"])
@pytest.mark.parametrize("found", ["NFC", "NFD"])
def test_accents_are_part_of_a_letter_or_after_it(asked: Literal["NFC", "NFD"], found: Literal["NFC", "NFD"]) -> None:
    files = FileTable(
        [IndexedFile(normalize(found, "/für/é.wav")), IndexedFile("/fur/e.wav"), IndexedFile("/\udcff/é")]
    )
    for where in (Where(name=normalize(asked, "é.*")), Where(folder=normalize(asked, "/für"))):
        assert where.fits(files).tolist() == [True, False, False]


@pytest.fixture(params=["in memory", "read"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> FileTable:
    made = FileTable(FILES)
    made.add(IndexedFile("/sounds/field/rain gone.wav", 3.0))
    made.remove("/sounds/field/rain gone.wav")
    if request.param == "in memory":
        return made
    made.save(tmp_path / "files.parquet")
    return FileTable.load(tmp_path / "files.parquet")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), [0, 1, 2, 3]),
        (Where(name="rain*.wav"), [0]),
        (Where(name="*rain*"), [0, 1]),
        (Where(name="rain"), []),
        (Where(name="[rR]ain ?.wav"), [0, 2]),
        (Where(folder="/sounds/field"), [0, 1]),
        (Where(folder="/sounds/./field/deep/.."), [0, 1]),
        (Where(folder="/sounds/field/rain 1.wav"), []),
        (Where(min_duration_s=2), [0, 1, 3]),
        (Where(max_duration_s=4.0), [0, 3]),
        (Where(min_duration_s=4, max_duration_s=4), [3]),
        (Where("*.wav", "/sounds", 0, 10), [0]),
    ],
    ids=str,
)
def test_files_that_meet_all_conditions(where: Where, expected: list[int], table: FileTable) -> None:
    assert np.flatnonzero(where.fits(table)).tolist() == expected


def test_relative_folders_are_those_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    table = FileTable([IndexedFile(str((tmp_path / "real").resolve() / "a.wav")), IndexedFile("real/b.wav")])
    for folder in ("real", "./real/", "link"):
        assert Where(folder=folder).fits(table)[0]
    assert Where(folder="real").fits(table).all()
    assert str(Where(folder="real")) == f"folder {tmp_path / 'real'}", "what was looked for"


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"min_duration_s": -1.0}, "min_duration_s: found -1.0, expected seconds, 0 or more"),
        ({"max_duration_s": float("nan")}, "max_duration_s: found nan"),
        ({"min_duration_s": 3.0, "max_duration_s": 2.0}, "min_duration_s: found 3.0, expected no more than .* 2.0"),
        ({"min_duration_s": "3"}, "min_duration_s: found '3', expected seconds"),
        ({"name": 3}, "name: found 3, expected a text"),
        ({"folder": ""}, "folder: found '', expected a path"),
    ],
)
def test_conditions_that_cannot_be_met_are_refused(conditions: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Where(**conditions)  # type: ignore[arg-type]


def test_durations_that_no_file_has_are_told() -> None:
    with pytest.raises(InputError, match="durations are not known of the indexed files; run `enclap index`"):
        Where(min_duration_s=1).fits(FileTable([IndexedFile("a")]))

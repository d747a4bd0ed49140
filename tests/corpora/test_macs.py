"""MACS: one YAML file, in which everything is text."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpora.macs import MacsCorpus
from models.errors import CorpusError
from models.files import GIT_LFS
from tests.corpora.layouts import touch

YAML = """\
files:
- filename: airport-barcelona-0-0-a.wav
  annotations:
  - annotator_id: 48
    sentence: Adults talking and some footsteps coming across.
    tags:
    - adults_talking
    - footsteps
  - annotator_id: 49
    sentence: 'Yes'
    tags:
    - adults_talking
- filename: park-2019.wav
  annotations:
  - {annotator_id: 50, sentence: No, tags: [birds]}
  - {annotator_id: 51, sentence: '  ', tags: [birds]}
- filename: gone.wav
  annotations:
  - {annotator_id: 50, sentence: birds, tags: [birds]}
- filename: mute.wav
  annotations: []
- filename: airport-barcelona-0-0-a.wav
  annotations:
  - {annotator_id: 50, sentence: again, tags: []}
- annotations: []
- ../out.wav
"""


def _corpus(root: Path, **settings: str) -> MacsCorpus:
    return MacsCorpus.model_validate({"kind": "macs", "root": str(root), **settings})


@pytest.mark.parametrize(("yaml", "audio"), [(".", "audio"), ("MACS", "MACS/audio")])
def test_reads_clips_and_sets_others_aside(tmp_path: Path, yaml: str, audio: str) -> None:
    touch(tmp_path / audio, ["airport-barcelona-0-0-a.wav", "park-2019.wav", "mute.wav"])
    (tmp_path / yaml / "MACS.yaml").write_text(YAML)
    table = _corpus(tmp_path).read("train")
    assert table.clips["clip_id"].tolist() == ["airport-barcelona-0-0-a", "park-2019"]
    assert table.clips["path"].iloc[1] == str(tmp_path / audio / "park-2019.wav")
    assert table.clips["captions"].tolist() == [["Adults talking and some footsteps coming across.", "Yes"], ["No"]]
    assert set(table.clips["freesound_id"]) == set(table.clips["youtube_id"]) == {""}
    parts = ["item 2: audio file is missing", "item 3: no caption", "item 4: duplicate", "item 5: exp", "item 6: exp"]
    for reason, part in zip(table.quarantine["reason"], parts, strict=True):
        assert f"MACS.yaml {part}" in reason


def test_audio_folder_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "MACS.yaml").write_text(YAML)
    touch(tmp_path / "tau", ["park-2019.wav"])
    with pytest.raises(CorpusError, match=r"no such audio folder.*`audio_folder`"):
        _corpus(tmp_path).read("train")
    assert _corpus(tmp_path, audio_folder="tau").read("train").clips["clip_id"].tolist() == ["park-2019"]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"MACS\.yaml: no such captions file.*zenodo"):
        _corpus(tmp_path).read("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("files: [", "as YAML"),
        (f"{GIT_LFS.decode()}v1", "pointer of Git LFS"),
        ("- a", "as MACS has it"),
        ("files: a", "as MACS has it"),
        ("files: []", "no clips"),
    ],
)
def test_files_in_another_form(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "MACS.yaml").write_text(text)
    (tmp_path / "audio").mkdir()
    with pytest.raises(CorpusError, match=f"MACS.yaml: .*{message}"):
        _corpus(tmp_path).read("train")


def test_there_is_one_split() -> None:
    with pytest.raises(ValueError, match="train"):
        MacsCorpus.model_validate({"kind": "macs", "root": ".", "splits": ["test"]})

"""Relevance files: captions that several clips are right for."""

from pathlib import Path

import pytest

from corpora.table import CorpusError
from ray_jobs.evaluate import read_relevance

NAMES = ["a.wav", "b, c.wav", "d.wav"]


def test_captions_and_their_clips(tmp_path: Path) -> None:
    path = tmp_path / "relevance.csv"
    path.write_text('caption,file_name\nrain,d.wav\n"a dog, far",a.wav\nrain,"b, c.wav"\nrain,d.wav\n')
    queries, right = read_relevance(path, NAMES)
    assert queries == ["rain", "a dog, far"]
    assert right.tolist() == [[2, 1], [0, -1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caption,clip\nrain,a.wav\n", "found columns caption, clip; expected caption, file_name"),
        ("caption,file_name\n", "no rows"),
        ("caption,file_name\nrain,e.wav\n", "line 2: 'e.wav' is not among the 3 clips"),
        ("caption,file_name\nrain,a.wav\n ,d.wav\n", "line 3: the caption is blank; expected a query"),
        ("", "expected caption, file_name"),
    ],
)
def test_files_that_do_not_fit(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "relevance.csv"
    path.write_text(content)
    with pytest.raises(CorpusError, match=message):
        read_relevance(path, NAMES)

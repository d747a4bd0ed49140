"""Relevance files: queries that several clips are right for."""

from pathlib import Path

import pytest

from corpora.relevance import read_relevance
from models.csv_files import read_captions
from models.errors import CorpusError


def written(folder: Path, content: str) -> Path:
    path = folder / "relevance.csv"
    path.write_text(content, encoding="utf-8")
    return path


def test_a_row_for_each_clip(tmp_path: Path) -> None:
    path = written(tmp_path, 'caption,file_name\nrain,d.wav\n"a dog, far",a.wav\nrain,"b, c.wav"\nrain,d.wav\n')
    assert read_relevance(path) == {"rain": {"d.wav": 2, "b, c.wav": 4}, "a dog, far": {"a.wav": 3}}


def test_a_row_for_each_query_as_dcase_2025_has_it(tmp_path: Path) -> None:
    rows = (
        "\"A Bicycle, passing.\",\"['bird_in_rain.wav', 'Stream Honiton.wav']\"\n"
        'RAIN,"[""it\'s raining.wav"", \'b.wav\', \'b.wav\']"\n'
    )
    assert read_relevance(written(tmp_path, "query,audio_filenames\n" + rows)) == {
        "A Bicycle, passing.": {"bird_in_rain.wav": 2, "Stream Honiton.wav": 2},
        "RAIN": {"it's raining.wav": 3, "b.wav": 3},
    }


def test_the_published_file(shared_data: Path) -> None:
    right = read_relevance(shared_data / "dcase2025" / "metadata_eval.csv")
    assert len(right) == 1037
    assert max(map(len, right.values())) == 12
    assert set(right) <= set(read_captions(shared_data / "clotho" / "clotho_captions_evaluation.csv"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("caption,clip\nrain,a.wav\n", "found columns caption, clip; expected query, audio_filenames"),
        ("caption,file_name\n", "no rows"),
        ("", "expected query, audio_filenames"),
        ("caption,file_name\nrain,a.wav\n ,a.wav\n", "line 3: the caption is blank; expected a query"),
        ("query,audio_filenames\n...,['a.wav']\n", "line 2: the query is blank"),
        ("query,audio_filenames\n_,['a.wav']\n", "line 2: the query is blank"),
        ("query,audio_filenames\nrain,a.wav\n", "line 2: audio_filenames: found 'a.wav', expected a list"),
        ("query,audio_filenames\nrain,[]\n", "line 2: audio_filenames"),
        ("query,audio_filenames\nrain,[1]\n", "line 2: audio_filenames"),
        ("query,audio_filenames\nrain," + "[" * 5000 + "\n", "line 2: audio_filenames"),
        ("query,audio_filenames\nrain,__import__('os').getcwd()\n", "line 2: audio_filenames"),
    ],
)
def test_files_that_do_not_fit(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=message):
        read_relevance(written(tmp_path, content))

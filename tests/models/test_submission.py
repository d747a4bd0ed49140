"""Task 6 and Task 8 files, good and broken."""

import csv
from pathlib import Path

import pytest

from models.submission import (
    SubmissionError,
    check_captions,
    check_retrieval,
    one_line,
    write_captions,
    write_retrieval,
)

POOL = ["a, b.wav", 'say "hi".wav', "Ünïcode.wav", *(f"{n}.wav" for n in range(9))]
QUERIES = ['rain, and "thunder"', "a dog barks\nand a cat", "ein Bär brummt"]
RANKING = [POOL, POOL[::-1], POOL[1:] + POOL[:1]]

# --- Task 6 --------------------------------------------------------------------------------------------------------

NAMES = POOL[:4]
CAPTIONS = ["rain, and wind", 'a man says "hi"', "ein Bär brummt", "a dog barks"]


def test_captions_read_back(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    write_captions(path, NAMES, CAPTIONS, NAMES)
    check_captions(path, NAMES[::-1])
    assert path.read_bytes().startswith(b'file_name,caption_predicted\n"a, b.wav","rain, and wind"\n')
    with path.open(encoding="utf-8", newline="") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == list(zip(NAMES, CAPTIONS, strict=True))
    assert list(tmp_path.iterdir()) == [path]


def test_captions_are_single_lines(tmp_path: Path) -> None:
    assert one_line(" a dog\n\tbarks\x00\x1b\u2028and\u00a0 a  cat\r\n") == "a dog barks and a cat"
    path = tmp_path / "captions.csv"
    write_captions(path, NAMES[:1], ["a dog\nbarks\x07"], NAMES[:1])
    assert path.read_text(encoding="utf-8").splitlines()[1] == '"a, b.wav",a dog barks'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption_predicted", "caption", "header 'file_name,caption'"),
        ("file_name,caption_predicted\n", "", "header 'a, b.wav,rain, and wind'"),
        ("0.wav,a dog barks", "0.wav, ", r"row 4: the caption of '0\.wav' is blank"),
        ("0.wav,a dog barks", "0.wav", "row 4: 1 cells, expected 2"),
        ("0.wav,a dog barks", '0.wav,"a dog\nbarks"', r"row 4: caption 'a dog\\nbarks', expected one line"),
        ("0.wav,a dog barks", "9.wav,a dog barks", r"row 4: '9\.wav' is not among the 4 files"),
        ("0.wav,a dog barks", "Ünïcode.wav,a dog barks", r"row 4: 'Ünïcode\.wav' has a row already"),
        ("0.wav,a dog barks\n", "", r"1 of 4 files have no row, '0\.wav' among them"),
        ("Ünïcode", "\udcff", "not CSV in UTF-8"),
    ],
)
def test_broken_captions_are_refused_with_the_row(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    write_captions(path, NAMES, CAPTIONS, NAMES)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    with pytest.raises(SubmissionError, match=message):
        check_captions(path, NAMES)


@pytest.mark.parametrize(
    ("names", "captions", "message"),
    [
        (["a.wav", "b.wav"], ["rain", " \n"], r"captions\.csv: row 2: the caption of 'b\.wav' is blank"),
        (["a.wav", "a.wav"], ["rain", "wind"], r"1 names stand for several files, 'a\.wav' among them"),
        (["a\udcff.wav"], ["rain"], r"the name 'a\\udcff\.wav' is not UTF-8, .*rename"),
        (["a.wav"], ["rain \udcff"], "is not Unicode text"),
    ],
)
def test_captions_that_are_no_submission_are_not_written(
    names: list[str], captions: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SubmissionError, match=message):
        write_captions(tmp_path / "captions.csv", names, captions, names)
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_caption_is_named(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"1 of 4 files have no row, '0\.wav' among them"):
        write_captions(tmp_path / "captions.csv", NAMES[:3], CAPTIONS[:3], NAMES)


# --- Task 8 --------------------------------------------------------------------------------------------------------


def test_a_good_file_reads_back_verbatim(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_retrieval(path, QUERIES, RANKING, POOL)
    check_retrieval(path, QUERIES, POOL)
    lines = path.read_bytes()
    assert lines.startswith(
        b"caption,fname_1,fname_2,fname_3,fname_4,fname_5,fname_6,fname_7,fname_8,fname_9,fname_10\n"
    )
    assert b"\r" not in lines
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption,", "query,", "header 'query,"),
        ("ein Bär", "Ein Bär", "row 3: caption 'Ein Bär"),
        ("\nein", "\none,two\nein", "row 3: 2 cells"),
        ("0.wav,1.wav", "0.wav,0.wav", "row 1: 9 different names"),
        ("0.wav,1.wav", "0.wav,absent.wav", "row 1: 'absent.wav' is not among the 12 files"),
        ("Ünïcode", "\udcff", "not CSV in UTF-8"),
    ],
)
def test_broken_files_are_refused_with_the_row(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_retrieval(path, QUERIES, RANKING, POOL)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    with pytest.raises(SubmissionError, match=message):
        check_retrieval(path, QUERIES, POOL)


def test_rows_too_few_or_too_many_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_retrieval(path, QUERIES, RANKING, POOL)
    for queries in (QUERIES[:2], [*QUERIES, "another"]):
        with pytest.raises(SubmissionError, match=f"3 rows, expected one for each of {len(queries)}"):
            check_retrieval(path, queries, POOL)


def test_a_pool_too_small_or_ambiguous_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="9 files to choose from, expected at least 10"):
        write_retrieval(tmp_path / "out.csv", QUERIES, RANKING, POOL[:9])
    with pytest.raises(SubmissionError, match="1 names stand for several files"):
        write_retrieval(tmp_path / "out.csv", QUERIES, RANKING, [*POOL, POOL[0]])
    with pytest.raises(SubmissionError, match=r"the name 'a\\udcff\.wav', and that of 1 more is not UTF-8"):
        write_retrieval(tmp_path / "out.csv", QUERIES, RANKING, [*POOL, "a\udcff.wav", "b\udcff.wav"])
    with pytest.raises(SubmissionError, match="is not among the 11 files"):
        write_retrieval(tmp_path / "out.csv", QUERIES, RANKING, POOL[1:])
    assert not list(tmp_path.iterdir())

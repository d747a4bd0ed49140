"""Task 8 files, good and broken."""

from pathlib import Path

import pytest

from models.submission import SubmissionError, check_retrieval, read_queries, write_retrieval

POOL = ["a, b.wav", 'say "hi".wav', "Ünïcode.wav", *(f"{n}.wav" for n in range(9))]
QUERIES = ['rain, and "thunder"', "a dog barks\nand a cat", "ein Bär brummt"]
RANKING = [POOL, POOL[::-1], POOL[1:] + POOL[:1]]


def test_a_good_file_reads_back_verbatim(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_retrieval(path, QUERIES, RANKING, POOL)
    check_retrieval(path, QUERIES, POOL)
    assert read_queries(path) == QUERIES
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
    with pytest.raises(SubmissionError, match="is not among the 11 files"):
        write_retrieval(tmp_path / "out.csv", QUERIES, RANKING, POOL[1:])
    assert not list(tmp_path.iterdir())


def test_queries_are_read_from_their_column(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text('id,caption\n1,"rain, wind"\n2,dog\n', encoding="utf-8-sig")
    assert read_queries(path) == ["rain, wind", "dog"]
    for content, message in (
        ("text\nrain\n", "named caption"),
        ("caption\n", "no query"),
        ("id,caption\n1, \n", "row 1"),
    ):
        path.write_text(content)
        with pytest.raises(SubmissionError, match=message):
            read_queries(path)

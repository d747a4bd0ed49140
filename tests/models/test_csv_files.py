"""Captions and queries of CSV files: taken verbatim, refused with the line."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.csv_files import read_captions, read_queries
from models.errors import CorpusError
from models.files import GIT_LFS


def _file(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "captions.csv"
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    return path


def test_captions_of_clothos_columns(tmp_path: Path) -> None:
    text = 'file_name,caption_1,caption_2\na.wav,"rain, wind", \nb.wav,NA,ein Bär\n,,\n'
    assert read_captions(_file(tmp_path, text)) == ["rain, wind", "NA", "ein Bär"]


@pytest.mark.parametrize("column", ["caption", "caption_predicted"])
def test_captions_of_one_column(tmp_path: Path, column: str) -> None:
    assert read_captions(_file(tmp_path, f"file_name,{column}\na.wav,rain\n")) == ["rain"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"found columns \(none\); expected caption, caption_predicted"),
        ("file_name,text\na.wav,rain\n", "found columns file_name, text; expected caption, caption_predicted"),
        ("caption_1,caption_2\n , \n", "no rows; expected at least one"),
        ("caption_1,caption_2\nrain,\n-,-\n", "line 3: found no captions in caption_1, caption_2"),
        ("file_name,caption\na.wav,rain\nb.wav,\n", "line 3: found no captions in caption, expected at least one"),
        ("file_name,caption_id\na.wav,17\n", "found columns file_name, caption_id; expected caption, "),
        ("caption\n", "no rows; expected at least one"),
        ("caption\nrain\na dog, barking\n", "line 3: more fields than the header has columns"),
        ("caption\nrain\n\udcff\n", "line 3: .* is not UTF-8"),
        ('caption\n"rain\nwind\n', "line 2: is a quote opened and not closed"),
        ("caption\nrain\nwi\0nd\n", "line 3: .* holds a NUL character"),
        ("caption,cap\0tion_1\nrain,wind\n", "found a NUL character in the header, .*; save it as UTF-8"),
    ],
)
def test_files_without_usable_captions_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=f"captions.csv.*{message}"):
        read_captions(_file(tmp_path, text))


@pytest.mark.parametrize("read", [read_captions, read_queries])
def test_a_missing_file_is_named(tmp_path: Path, read: Callable[[Path], list[str]]) -> None:
    with pytest.raises(CorpusError, match=r"gone\.csv: no such file; expected a CSV file with"):
        read(tmp_path / "gone.csv")


@pytest.mark.parametrize("end", [b"x", "\ud800".encode("utf-16-le", "surrogatepass") + b"x\0"])
@pytest.mark.parametrize("read", [read_captions, read_queries])
def test_a_file_that_is_not_what_its_byte_order_mark_says_is_refused(
    tmp_path: Path, read: Callable[[Path], list[str]], end: bytes
) -> None:
    path = _file(tmp_path, "caption\nrain\n", "utf-16")
    path.write_bytes(path.read_bytes() + end)
    with pytest.raises(CorpusError, match=r"captions\.csv: is not UTF-16, .*; expected a CSV file with .* as UTF-8"):
        read(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_refused(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(CorpusError, match="NUL character in the header, as in UTF-16 without a byte order mark"):
        read_captions(_file(tmp_path, "caption\nrain\n", encoding))


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nid;caption\r\n1;rain, wind\r\n",
        '"sep=|"\nid|caption\n1|rain, wind\n',
        "SEP=\t\nid\tcaption\n1\train, wind\n",
        'id;caption;"source, licence"\n1;rain, wind;"a, b"\n',
        '"source, licence";caption\n"a, b";rain, wind\n',
        '"two\nlines, one column";caption\na;rain, wind\n',
        "\nid;caption\n1;rain, wind\n",
        " \r\n;;\r\nid;caption\r\n1;rain, wind\r\n",
        "\tcaption\n0\train, wind\n",
        'caption,"of; sounds"\n"rain, wind",a;b\n',
        '[id],caption\n1,"rain, wind"\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_separates_fields_is_found(tmp_path: Path, text: str, encoding: str) -> None:
    assert read_captions(_file(tmp_path, text, encoding)) == ["rain, wind"]


def test_lines_are_counted_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="line 3: the caption is blank"):
        read_queries(_file(tmp_path, "sep=;\nid;caption\n1; \n"))
    with pytest.raises(CorpusError, match="line 4: is a quote opened and not closed"):
        read_queries(_file(tmp_path, 'sep=;\nid;caption\n1;rain\n2;"wind\n\n'))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"PK\3\4rest", r"a ZIP archive, which an Excel workbook \(\.xlsx\) is, too"),
        (b"\xd0\xcf\x11\xe0rest", r"an Excel workbook \(\.xls\)"),
        (gzip.compress(b"caption\nrain\n"), "a gzip archive"),
        (b"PAR1rest", "a Parquet file"),
        (GIT_LFS + b"v1\noid sha256:0\nsize 438\n", "a pointer of Git LFS, .*git lfs pull"),
        (b'[{"caption": "rain"}]', "JSON, expected a CSV file with captions; save it as CSV"),
        (b'{"caption": "rain"}\n{"caption": "wind"}\n', "JSON, expected"),
        (b'[\n {"caption": "rain"}\n]\n', "JSON, expected"),
    ],
)
def test_what_is_no_csv_file_is_named(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "captions.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=rf"captions\.csv: found {found}"):
        read_captions(tmp_path / "captions.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_pipe_is_read_which_can_be_done_once_alone(tmp_path: Path, encoding: str) -> None:
    reading, writing = os.pipe()
    os.write(writing, "caption\nrain\n".encode(encoding))
    os.close(writing)
    assert read_captions(Path(f"/dev/fd/{reading}")) == ["rain"]
    os.close(reading)


def test_queries_are_read_verbatim_from_their_column(tmp_path: Path) -> None:
    queries = ["rain, wind", ' a "dog" ', "two\nlines", "ein Bär"]
    lines = "".join(f'{number},"{query.replace(chr(34), chr(34) * 2)}"\n' for number, query in enumerate(queries))
    assert read_queries(_file(tmp_path, f"id,caption\n{lines}", "utf-8-sig")) == queries


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\nrain\n", "found columns text; expected caption"),
        ("caption\n", "no rows"),
        ("id,caption\n1,rain\n2, \n", "line 3: the caption is blank"),
        ("id,caption\n1,rain\n2\n", "line 3: the caption is blank"),
        ("id,caption\n1,\udcff\n", "line 2: .* is not UTF-8"),
    ],
)
def test_queries_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=f"captions.csv.*{message}"):
        read_queries(_file(tmp_path, text))

"""Captions and timelines in every format that `enclap caption` writes."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import Any

import pytest
from rich.console import Console

from models.commands.formats import Entry, all_lines, check_format, table
from models.commands.options import Format
from models.errors import InputError

CAPTIONS: list[Entry] = [
    {"path": "a.wav", "text": "a dog, barking\nloudly", "score": 0.5, "candidates": []},
    {"path": "[bold]:dog:.wav", "text": 'say "hi"', "score": -1.25, "candidates": []},
]


def timeline(*segments: tuple[float, float, str]) -> Entry:
    listed = [{"start_s": start, "end_s": end, "text": text, "score": 1.0} for start, end, text in segments]
    return {"path": "a.wav", "duration_s": 60.0, "segments": listed}


def written(wanted: str, *entries: Entry) -> list[str]:
    return list(all_lines(Format(wanted), entries))


def test_captions() -> None:
    assert written("tsv", *CAPTIONS) == ["a.wav\ta dog, barking loudly", '[bold]:dog:.wav\tsay "hi"']
    assert [*csv.reader(written("csv", *CAPTIONS))] == [
        ["path", "caption", "score"],
        ["a.wav", "a dog, barking loudly", "0.5"],
        ["[bold]:dog:.wav", 'say "hi"', "-1.25"],
    ]
    assert [json.loads(line) for line in written("json", *CAPTIONS)] == CAPTIONS


def test_timelines() -> None:
    entry = timeline((0, 10, "rain"), (5, 15.5, "wind"))
    assert written("tsv", entry) == ["a.wav\t0.000\t10.000\train", "a.wav\t5.000\t15.500\twind"]
    assert written("csv", entry)[:2] == ["path,start_s,end_s,caption,score", "a.wav,0.000,10.000,rain,1.0"]
    assert [json.loads(line) for line in written("json", entry)] == [entry]


def test_a_name_is_one_cell_of_one_line_where_tabs_separate() -> None:
    entry = {"path": "a\tb\nc\rd\\e.wav", "text": "rain", "score": 0.0}
    assert written("tsv", entry) == [r"a\tb\nc\rd\\e.wav" + "\train"]
    assert next(csv.reader(io.StringIO(written("csv", entry)[1], newline="")))[0] == entry["path"]


def test_names_that_are_not_unicode() -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    entry = {"path": name, "text": "rain", "score": 0.0}
    assert os.fsencode(written("tsv", entry)[0]) == b"caf\xe9.wav\train"
    assert json.loads(written("json", entry)[0])["path"] == name
    shown(entry)


def shown(*entries: Entry) -> str:
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(entries))
    return console.export_text()


def test_a_table_shows_names_as_they_are_and_times() -> None:
    assert "[bold]:dog:.wav" in shown(*CAPTIONS)
    assert "from" not in shown(*CAPTIONS)
    found = shown(timeline((0, 10, "rain"), (3590.06, 3725.5, "wind")))
    assert "00:00:00.0" in found
    assert "01:02:05.5" in found
    assert "00:59:50.1" in found


@pytest.mark.parametrize(
    ("segments", "cues"),
    [
        ([(0, 10, "rain"), (10, 20, "wind")], [("00:00:00", "00:00:10", "rain"), ("00:00:10", "00:00:20", "wind")]),
        # overlapping windows meet in the middle
        ([(0, 10, "rain"), (5, 15, "wind")], [("00:00:00", "00:00:07.5", "rain"), ("00:00:07.5", "00:00:15", "wind")]),
        ([(0, 9, "a"), (3, 12, "b"), (6, 15, "c")], [("0", "6", "a"), ("6", "9", "b"), ("9", "15", "c")]),
        # neighbours with equal captions are one cue, unless silence lies between them
        ([(0, 10, "rain"), (5, 15, "rain")], [("00:00:00", "00:00:15", "rain")]),
        ([(0, 5, "rain"), (10, 15, "rain")], [("0", "5", "rain"), ("10", "15", "rain")]),
        ([(3600, 3661.5, "rain & <wind>")], [("01:00:00", "01:01:01.5", "rain & <wind>")]),
    ],
)
def test_subtitles_show_one_caption_at_a_time(segments: Any, cues: Any) -> None:
    srt, vtt = written("srt", timeline(*segments)), written("vtt", timeline(*segments))
    assert vtt[:2] == ["WEBVTT", ""]
    expected = []
    for number, (start, end, text) in enumerate(cues, 1):
        expected += [str(number), f"{full(start)} --> {full(end)}", text, ""]
    assert srt == expected
    escaped = [line.replace("&", "&amp;").replace("<", "&lt;") for line in expected]
    marked = [line.replace(",", ".") if "-->" in line else line.replace(">", "&gt;") for line in escaped]
    assert vtt[2:] == marked


def full(time: str) -> str:
    """Return 00:00:07,500 of `00:00:07.5` or `7.5`."""
    *hours, seconds = ["00", "00", *time.split(":")][-3:]
    return ":".join([*hours, f"{float(seconds):06.3f}"]).replace(".", ",")


@pytest.mark.parametrize("wanted", [Format.SRT, Format.VTT])
def test_subtitles_need_one_file_and_windows(wanted: Format) -> None:
    check_format(wanted, 1, True)
    with pytest.raises(InputError, match=f"--format {wanted}: found 2 files, expected one file and --window SECONDS"):
        check_format(wanted, 2, True)
    with pytest.raises(InputError, match=f"--format {wanted}: found no --window"):
        check_format(wanted, 1, False)
    check_format(Format.CSV, 2, False)

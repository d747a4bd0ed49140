"""JSON files that cannot be used are refused by name."""

from pathlib import Path

import pytest

from models.files import GIT_LFS
from models.records import RecordError, parse_object, parse_record
from models.settings import BeamConfig


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[" * 200_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1', "not JSON"),
        (GIT_LFS + b"v1", "found a pointer of Git LFS, expected the JSON that it stands for"),
        (b"[]", r"found \[\], expected a JSON object"),
    ],
)
def test_what_is_no_object_that_can_be_read_is_refused_by_name(content: bytes, told: str) -> None:
    with pytest.raises(RecordError, match=rf"bundle\.json: {told}.*(; copy it again|git lfs pull)"):
        parse_object(content, Path("bundle.json"), "copy it again")


@pytest.mark.parametrize("depth", range(300, 1000, 20))
def test_values_of_any_depth_are_refused_by_name(depth: int) -> None:
    for content in ("[" * depth + "]" * depth, '{"size": ' + "[" * depth + "]" * depth + "}"):
        with pytest.raises(RecordError, match=r"config\.json: "):
            parse_record(BeamConfig, content, "config.json", "copy it again")


@pytest.mark.parametrize("found", ["true", "1.0", '"1"', "[1]", "2", "null", "9" * 4000])
def test_a_format_is_that_integer(found: str) -> None:
    with pytest.raises(
        RecordError, match=r"bundle\.json: format .*, this version reads format 1; copy it again"
    ) as one:
        parse_record(BeamConfig, f'{{"format": {found}}}', "bundle.json", "copy it again", 1)
    assert len(str(one.value)) < 200

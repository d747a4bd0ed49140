"""Every kind of corpus is found by its name in an experiment file, and refuses keys that it does not have."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from corpora.registry import Corpus

KINDS = ["soundscapes", "folder", "parquet", "clotho", "audiocaps", "wavcaps", "macs", "mixtures"]


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str) -> None:
    splits = {"train": 2} if kind == "soundscapes" else ["train"]
    settings = {"kind": kind, "root": "data", "splits": splits} | ({"pairs": "mix.json"} if kind == "mixtures" else {})
    assert TypeAdapter(Corpus).validate_python(settings).kind == kind
    for wrong in ({"rot": "data"}, {"splits": {"trian": 2} if kind == "soundscapes" else ["trian"]}):
        with pytest.raises(ValidationError):
            TypeAdapter(Corpus).validate_python({**settings, **wrong})

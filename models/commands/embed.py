"""embed: write the embeddings of audio, or of texts, by the retrievers of an exported ensemble.

Example: enclap embed runs/demo/bundle field_recordings/ --output embeddings.parquet
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ..arguments import batched
from ..console import count, say
from ..csv_files import read_captions
from ..errors import InputError
from ..files import atomic_write
from ..text import printable
from .audio_files import Reading, find_audio, read_sounds
from .loading import load_ensemble, windows_asked
from .options import Loading
from .output import reserved

if TYPE_CHECKING:
    from ..ensemble.bundle import Ensemble

TABLES_OF_GROUP = 64  # batches whose rows are held, and written as one row group
TEXTS_AT_ONCE = 64
OTHER_FORMATS = {".csv", ".tsv", ".txt", ".json", ".jsonl", ".npy", ".npz", ".arrow", ".feather", ".h5", ".xlsx"}


@dataclass(frozen=True)
class Options:
    """How audio is embedded: windows of it, or the beginning of each file; see `enclap embed --help`."""

    window_s: float | None = None
    hop_s: float | None = None
    batch_size: int = 16
    loading: Loading = field(default_factory=Loading)


def run(bundle: Path, paths: list[Path], texts: Path | None, output: Path, options: Options) -> None:
    """Write a Parquet file with a row for each file, window or text, and in it a list of float32 for each retriever.

    Args:
        paths: audio files, or directories of them; none where there are texts.
        texts: a CSV file with captions.

    Raises:
        AudioError: a path does not exist, or no file can be read.
        CheckpointError: the bundle cannot be loaded.
        CorpusError: the captions cannot be used.
        InputError: an option, or the output, cannot be used.
    """
    if bool(paths) == bool(texts):
        found = "audio paths and --texts" if paths else "neither audio paths nor --texts"
        raise InputError(f"enclap embed: found {found}, expected one of them")
    files = find_audio(paths) if paths else []
    captions = read_captions(texts) if texts else []
    windowing = windows_asked(bundle, options.window_s, options.hop_s)
    if texts and windowing:
        raise InputError("--window cuts audio; leave it out with --texts")
    with reserved({"--output": output}, [*files, *([texts] if texts else [])]):
        if output.suffix.lower() in OTHER_FORMATS:
            raise InputError(f"--output: found {output}, expected a name that ends with .parquet")
        ensemble = load_ensemble(bundle, options.loading, ask_captioners=False)
        of_audio = _of_audio(ensemble, files, Reading(options.batch_size, windowing))
        number = _write(output, _of_texts(ensemble, captions) if texts else of_audio)
    say(f"embed: {count(number, 'row')} in {output}")


def _of_audio(ensemble: Ensemble, files: list[Path], reading: Reading) -> Iterator[pa.Table]:
    for heard in read_sounds(ensemble, files, reading):
        columns: dict[str, list[Any]] = {"path": [printable(str(one.sound.path)) for one in heard]}
        if reading.windowing:
            columns |= {name: [getattr(one.sound, name) for one in heard] for name in ("start_s", "end_s")}
        columns["duration_s"] = [one.clip.duration_s for one in heard]
        yield _table(columns, ensemble.embed_clips([one.clip for one in heard]))


def _of_texts(ensemble: Ensemble, captions: list[str]) -> Iterator[pa.Table]:
    for some in batched(captions, TEXTS_AT_ONCE):
        yield _table({"text": some}, ensemble.embed_texts(some))


def _table(columns: Mapping[str, list[Any]], embeddings: Mapping[str, np.ndarray]) -> pa.Table:
    return pa.table({**columns, **embedding_columns(embeddings)})


def embedding_columns(embeddings: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
    """Return embeddings [rows, D] by retriever as columns of lists of float32."""
    return {
        name: pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), rows.shape[1])
        for name, rows in embeddings.items()
    }


def _write(output: Path, tables: Iterator[pa.Table]) -> int:
    """Write tables, at least one, as they come; return the number of rows."""
    first, rows = next(tables), 0
    # An open file, as names that are not Unicode are none for pyarrow.
    with atomic_write(output) as partial, partial.open("wb") as raw, parquet.ParquetWriter(raw, first.schema) as file:
        for group in batched(chain([first], tables), TABLES_OF_GROUP):
            joined = pa.concat_tables(group)
            file.write_table(joined)
            rows += len(joined)
    return rows

"""Adapter for Parquet files with the audio inside, as Hugging Face's `datasets` writes them; nothing is unpacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from corpora.audio import parquet_clip
from corpora.files import leads_out
from corpora.rows import Row, ids_of, split_usable
from corpora.settings import SPLIT_NAMES, OwnCorpusSettings, Split
from corpora.table import CorpusTable
from models.csv_files import numbered_captions
from models.errors import CorpusError

_CAPTIONS = ("caption", "captions", "text", "raw_text")
_IDS = ("freesound_id", "sound_id", "youtube_id")
BATCH_ROWS = 64  # rows of audio in memory at a time


class ParquetCorpus(OwnCorpusSettings):
    """Audio inside Parquet files: `<root>/<split>-*.parquet`, `<root>/data/<split>-*.parquet` or
    `<root>/<split>/*.parquet`.

    Columns: the audio, `struct<bytes, path>`; the captions; and, if known, `freesound_id` (or `sound_id`) and
    `youtube_id`. Rows of the same audio, as in AudioCaps with a row per caption, are one clip with the captions of all.
    """

    kind: Literal["parquet"]
    splits: list[Split] = Field(min_length=1, description="splits that are used")
    audio_column: str = Field("audio", description="column of the audio")
    captions_column: str | None = Field(
        None,
        description="column of the captions, text or lists of text; if none, `caption`, `captions`, `text`, "
        "`raw_text`, or `caption_1`, `caption_2` and so on",
    )

    def read(self, split: str) -> CorpusTable:
        """Read one split; its audio is not read, except in files whose rows share names.

        Paths are `<file>.parquet#<row>`, which `corpora.audio.load_clip` reads. A clip_id is the name of the audio in
        the file without its suffix, or `<file>#<row>` where that is blank or a path on another machine.

        Raises:
            CorpusError: if there is no file of the split, one cannot be read or lacks columns, or none has a row.
        """
        rows = {file: list(self._rows(file)) for file in self._files(split)}
        if not any(rows.values()):
            raise CorpusError(f"{self.folder}: no rows in the Parquet files of {split}; expected at least one")
        return split_usable(self._clips(rows), None)

    def _clips(self, rows: dict[Path, list[Row]]) -> Iterable[Row]:
        """Return one row for each clip. The same clip has the same name, ids, and number of bytes of audio."""
        named = Counter(row.file_name for of_file in rows.values() for row in of_file)
        clips: dict[tuple[Any, ...], Row] = {}
        for file, of_file in rows.items():
            several = any(named[row.file_name] > 1 for row in of_file)
            sizes = self._sizes(file) if several else [None] * len(of_file)
            for row, size in zip(of_file, sizes, strict=True):
                key = (row.file_name, row.freesound_id, row.youtube_id, size)
                first = clips.get(key)
                clips[key] = replace(first, captions=[*first.captions, *row.captions]) if first else row
        return clips.values()

    def _sizes(self, file: Path) -> list[int | None]:
        """Return the number of bytes of each row's audio."""
        with _parquet(file) as parquet:
            batches = parquet.iter_batches(BATCH_ROWS, columns=[f"{self.audio_column}.bytes"])
            return [size for batch in batches for size in pc.binary_length(batch.column(0).field("bytes")).to_pylist()]

    def _files(self, split: str) -> list[Path]:
        places = ("{}-*.parquet", "data/{}-*.parquet", "{}/*.parquet")
        patterns = [place.format(name) for name in SPLIT_NAMES[split] for place in places]
        found = {pattern: sorted(self.folder.glob(pattern)) for pattern in patterns}
        there = [pattern for pattern in patterns if found[pattern]]
        if len(there) != 1:
            what = f"files of {split} in more than one place ({', '.join(there)})" if there else "no such files"
            raise CorpusError(f"{self.folder}/{patterns[0]}: {what}; expected those of one of {', '.join(patterns)}")
        return found[there[0]]

    def _rows(self, file: Path) -> Iterator[Row]:
        with _parquet(file) as parquet:
            schema = parquet.schema_arrow
            captions, name = self._captions(file, schema), self._audio_name(file, schema)
            table = parquet.read([*captions, *name, *(column for column in _IDS if column in schema.names)])
            rows = table.to_pylist()
        for number, cells in enumerate(rows):
            yield self._row(file, number, cells, captions)

    def _row(self, file: Path, number: int, cells: dict[str, Any], captions: list[str]) -> Row:
        texts = [text for column in captions for text in _listed(cells[column])]
        given = (cells.get(self.audio_column) or {}).get("path") or ""
        name = f"{file.stem}#{number}" if not given.strip() or leads_out(given) else given
        path = parquet_clip(file, number, self.audio_column)
        return Row(f"{file.name} row {number}", name, texts, path=path, **ids_of(cells))

    def _captions(self, file: Path, schema: pa.Schema) -> list[str]:
        if self.captions_column is not None:
            wanted = [self.captions_column] if self.captions_column in schema.names else []
        else:
            wanted = [name for name in _CAPTIONS if name in schema.names][:1] or numbered_captions(schema.names)
        if not wanted or not all(_is_text(schema.field(name).type) for name in wanted):
            expected = self.captions_column or f"{', '.join(_CAPTIONS)} or caption_1, caption_2, ..."
            raise CorpusError(
                f"{file}: found columns {_described(schema)}; expected captions, text or lists of text, in {expected}; "
                "set `captions_column` if they are in another"
            )
        return wanted

    def _audio_name(self, file: Path, schema: pa.Schema) -> list[str]:
        """Return the column of the audio's name, if there is one.

        Raises:
            CorpusError: if there is no audio.
        """
        column = self.audio_column
        kind = schema.field(column).type if column in schema.names else pa.null()
        fields = [field.name for field in kind] if pa.types.is_struct(kind) else []
        if "bytes" not in fields:
            raise CorpusError(
                f"{file}: found columns {_described(schema)}; expected {column}: struct<bytes, path>; "
                "set `audio_column` if the audio is in another"
            )
        return [f"{column}.path"] if "path" in fields else []


@contextmanager
def _parquet(file: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, whose pages are read later; raise CorpusError if it, or one of them, cannot be read."""
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except UnicodeEncodeError as error:
        raise CorpusError(f"{file}: the name is not UTF-8; rename the file") from error
    except CorpusError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CorpusError(f"{file}: cannot be read as Parquet ({error})") from error


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    return pa.types.is_string(inner) or pa.types.is_large_string(inner)


def _listed(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [cell]


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema) or "(none)"

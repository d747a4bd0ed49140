"""index-collection: index all audio of folders and buckets on a cluster, with Ray Data.

Example: enclap index-collection /shared/bundle s3://bucket/sounds --output s3://bucket/embeddings --window 10
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from models.commands.embed import embedding_columns
from models.commands.index import SAVE_ROWS, begin_afresh_if_unusable, finish_index, index_lock, spell_windows
from models.console import progress_bar, say
from models.ensemble.bundle import Ensemble
from models.ensemble.clip import Clip
from models.ensemble.index import AudioIndex
from models.ensemble.manifest import INDEX
from models.errors import InputError
from ray_jobs.inference.batch import Job, compute
from ray_jobs.inference.collection import KEY, Collection, Output, read_part
from ray_jobs.run import storage
from ray_jobs.run.entry import run_command


def run(collection: Collection) -> None:
    """Embed all files, or their windows, into Parquet parts, and make the bundle's index hold them as they are now.

    Raises:
        AudioError, CheckpointError, InputError: see `find_files` and `compute`; the index keeps what captioners need,
            or another process changes it.
    """
    files = collection.files
    output = compute(Job("index-collection", _rows, captioning=False), collection, files)
    bundle = collection.local_bundle()
    with index_lock(bundle):
        ensemble = Ensemble.load(bundle, "cpu", ask_captioners=False)
        begin_afresh_if_unusable(ensemble)
        if ensemble.audio_index.left_unread:
            raise InputError(f"{bundle}: its index keeps what captioners need, which this would drop; remove it first")
        _remove_gone(ensemble.audio_index, files, collection.sources)
        _add(ensemble, output, files, spell_windows(collection.windowing()))
        finish_index(ensemble)
    storage.push(storage.local_path(collection.bundle) / INDEX)


def _rows(ensemble: Ensemble, clips: Sequence[Clip]) -> pa.Table:
    return pa.table(embedding_columns(ensemble.embed_clips(clips)))


def _remove_gone(index: AudioIndex, files: pd.DataFrame, sources: Sequence[str]) -> None:
    """Remove files of the sources that are there no more."""
    there = {*files["path"]}
    inside = tuple(f"{(s.partition('?')[0] if '://' in s else str(Path(s).resolve())).rstrip('/')}/" for s in sources)
    gone = [file.path for file in index.files.present() if file.path.startswith(inside) and file.path not in there]
    index.remove(gone)
    if gone:
        say(f"index-collection: removed, as they are gone: {len(gone)} files, {gone[0]} among them")


def _add(ensemble: Ensemble, output: Output, files: pd.DataFrame, windows: str) -> None:
    """Add what the index lacks of the files as they are now."""
    index, saved = ensemble.audio_index, len(ensemble.audio_index)
    stamps = dict(zip(files["path"], files["stamp"], strict=True))
    parts = output.parts()
    with progress_bar(len(parts), "parts", "adding to the index") as bar:
        for part in parts:
            keys = read_part(part, KEY).to_pandas()
            known = {path: index.files.find(path) for path in keys["path"].unique()}
            fresh = {p for p, file in known.items() if file and (file.stamp, file.windows) == (stamps.get(p), windows)}
            wanted = (keys["path"].map(stamps) == keys["stamp"]) & ~keys["path"].isin(fresh)
            if wanted.any():
                _add_rows(index, read_part(part).filter(pa.array(wanted)), windows)
            if len(index) - saved > SAVE_ROWS:
                ensemble.save_index()
                saved = len(index)
            bar.update(1)


def _add_rows(index: AudioIndex, table: pa.Table, windows: str) -> None:
    """Add rows of a part, in place of what is indexed of their files."""
    plain = {*KEY, "duration_s", "start_s", "end_s"}
    vectors = {name: table[name] for name in table.column_names if name not in plain}
    embeddings = {
        name: np.asarray(column.combine_chunks().flatten()).reshape(len(table), -1) for name, column in vectors.items()
    }
    rows = table.select([name for name in table.column_names if name in plain]).to_pandas()
    spans = rows[["start_s", "end_s"]].to_numpy() if windows else None
    index.remove(rows["path"].unique().tolist())
    index.add(rows["path"].tolist(), embeddings, spans, rows["duration_s"].tolist())
    for path, stamp in rows.drop_duplicates("path")[KEY].itertuples(index=False):
        file = index.files.find(path)
        assert file
        file.stamp, file.windows = stamp, windows


if __name__ == "__main__":
    run_command("index-collection")

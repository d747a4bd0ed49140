"""A shard: what goes in comes out, as views of the file; one that was cut off is named."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from ray_jobs.features.files import (
    FeaturesError,
    MappedShard,
    clips_digest,
    inputs_of_whole,
    read_table,
    shard_metadata,
    write_shard,
)

from .clips import clips, write


def test_round_trip(tmp_path: Path) -> None:
    written, shard = clips(5), tmp_path / "00000.arrow"
    metadata = {"inputs": "1", "codec": {"name": "x"}, "quarantine": [["bad", "/audio/bad.wav", "silent"]]}
    write_shard(shard, written, metadata, codebooks=3, mels=4)
    assert shard_metadata(shard) == metadata
    columns = [name for name in written[0] if name not in ("codes", "log_mel")]
    table = read_table(shard, columns)
    assert table.columns == {name: [clip[name] for clip in written] for name in columns}
    assert (table.metadata, table.size) == (metadata, shard.stat().st_size)
    mapped = MappedShard(shard)
    for row, clip in enumerate(written):
        for column in ("codes", "log_mel"):
            found = mapped.matrix(column, row)
            assert found.dtype == clip[column].dtype
            np.testing.assert_array_equal(found, clip[column])
    assert pa.ipc.open_file(shard).read_all()["codes"].to_pylist() == [clip["codes"].tolist() for clip in written]
    assert not list(tmp_path.glob(".*"))


def test_a_shard_all_of_whose_clips_were_set_aside(tmp_path: Path) -> None:
    write(tmp_path / "00000.arrow", [])
    assert read_table(tmp_path / "00000.arrow", ["clip_id"]).columns == {"clip_id": []}


def test_the_digest_of_clips_is_of_their_names_sound_and_captions_in_whatever_shards(tmp_path: Path) -> None:
    def digest(name: str, *shards: list[dict[str, Any]]) -> str | None:
        paths = [tmp_path / f"{name}-{number}.arrow" for number in range(len(shards))]
        for path, shard in zip(paths, shards, strict=True):
            write(path, shard)
        return clips_digest(paths)

    first, second = clips(2)
    whole = digest("whole", [first, second])
    assert whole == digest("parts", [first], [], [second])
    assert whole == digest("moved", [first | {"path": "/elsewhere.wav", "codes": second["codes"]}, second])
    for key, other in (("clip_id", "x"), ("audio_sha256", "y"), ("captions", [*first["captions"], "z"])):
        assert digest(key, [first | {key: other}, second]) != whole
    assert digest("none", [], []) is None


def test_matrices_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    """Opening a shard of 64 MB and looking at a corner of it takes hardly any memory, and no open file."""
    long = clips(1)[0] | {"log_mel": np.ones((8 << 20, 4), np.float16)}
    write(tmp_path / "00000.arrow", [long])
    process = psutil.Process()
    opened, before = process.num_fds(), process.memory_info().rss
    mapped = MappedShard(tmp_path / "00000.arrow")
    view = mapped.matrix("log_mel", 0)
    assert view[-1].tolist() == [1, 1, 1, 1]
    assert process.memory_info().rss - before < 16 << 20
    assert process.num_fds() == opened
    assert np.shares_memory(view, mapped.matrix("log_mel", 0))
    assert not view.flags.owndata
    assert not view.flags.writeable
    os.remove(tmp_path / "00000.arrow")
    del mapped
    assert view[0].tolist() == [1, 1, 1, 1], "a removed file stays as long as it is used"


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_a_shard_that_was_cut_off_is_named(tmp_path: Path, kept: float) -> None:
    shard = tmp_path / "00000.arrow"
    write(shard, clips(4))
    assert inputs_of_whole(shard) == "00000.arrow"
    content = shard.read_bytes()
    shard.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    assert inputs_of_whole(shard) is None
    for read in (shard_metadata, MappedShard, lambda path: read_table(path, ["clip_id"])):
        with pytest.raises(FeaturesError, match=r"00000\.arrow: found a file that was cut off .*`enclap prepare`"):
            read(shard)
    assert inputs_of_whole(tmp_path / "00001.arrow") is None


def rewrite(shard: Path, change: Callable[[pa.Table], list[pa.Table]]) -> None:
    """Write what `change` makes of a shard in its place, a batch each."""
    table = pa.ipc.open_file(shard).read_all()
    parts = change(table)
    with pa.ipc.new_file(shard, parts[0].schema if parts else table.schema) as file:
        for part in parts:
            file.write_table(part)


def overwrite(shard: Path, start: int, content: bytes) -> None:
    whole = bytearray(shard.read_bytes())
    whole[start : start + len(content)] = content
    shard.write_bytes(whole)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "footer": lambda shard: overwrite(shard, shard.stat().st_size - 300, b"\xff" * 280),
    "zeros": lambda shard: overwrite(shard, 8, bytes(shard.stat().st_size - 18)),
    "no metadata": lambda shard: rewrite(shard, lambda table: [table.replace_schema_metadata(None)]),
    "metadata": lambda shard: rewrite(shard, lambda table: [table.replace_schema_metadata({"enclap": b"{"})]),
    "no column": lambda shard: rewrite(shard, lambda table: [table.drop_columns(["codes"])]),
    "no batch": lambda shard: rewrite(shard, lambda table: []),
    "two batches": lambda shard: rewrite(shard, lambda table: [table.slice(0, 2), table.slice(2)]),
    "directory": lambda shard: shard.rename(shard.with_name("moved")) and shard.mkdir(),  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_made_again_and_not_read(damage: str, tmp_path: Path) -> None:
    shard = tmp_path / "00000.arrow"
    write(shard, clips(4))
    DAMAGES[damage](shard)
    assert inputs_of_whole(shard) is None
    with pytest.raises(FeaturesError, match=r"00000\.arrow: found a (file that was cut off or damaged|directory)"):
        read_table(shard, ["clip_id", "codes"])


def test_a_table_is_read_without_the_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a store only the bytes of the columns asked for are transferred."""
    shard = tmp_path / "00000.arrow"
    write(shard, [clips(1)[0] | {"log_mel": np.ones((1 << 20, 4), np.float16)}])
    read = 0

    class Counting:
        """An open file of a store that counts what is read."""

        def __init__(self) -> None:
            self.file, self.closed = shard.open("rb"), False

        def read(self, size: int = -1) -> bytes:
            nonlocal read
            found = self.file.read(size)
            read += len(found)
            return found

        def seek(self, *to: int) -> int:
            return self.file.seek(*to)

        def tell(self) -> int:
            return self.file.tell()

        def close(self) -> None:
            self.closed = True

        readable = seekable = lambda self: True
        writable = lambda self: False  # noqa: E731

    monkeypatch.setattr("ray_jobs.features.files.storage.source", lambda path: pa.PythonFile(Counting(), "r"))
    assert read_table(shard, ["clip_id", "captions"]).columns["clip_id"] == ["clip-0-0"]
    assert 0 < read < 64 << 10 < shard.stat().st_size

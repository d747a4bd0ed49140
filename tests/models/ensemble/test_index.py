"""An index on the disk: what was saved is found again, additions are appended, and old formats are read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.ensemble import Ensemble
from models.ensemble import index as index_module
from models.ensemble.captioner_fusion import CODES
from models.ensemble.index import AudioIndex
from models.ensemble.index_columns import Column, ColumnRecord, ragged
from models.ensemble.index_record import RECORD, check_index
from models.files import CheckpointError
from tests.small_bundle import write_bundle, write_sounds

HASHES = {"a": "1", "b": "2"}


def embeddings(number: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(number, 8)).astype(np.float32), "b": rng.normal(size=(number, 5)).astype(np.float32)}


def rows_on_disk(directory: Path) -> int:
    content = json.loads((directory / RECORD).read_text())
    return int(content["numbers"]["rows"])


def sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


def remove_sums(directory: Path) -> None:
    """Leave the sums out of the record, as before it had some."""
    content = json.loads((directory / RECORD).read_text())
    for column in (content["numbers"], content["spans"], *content["columns"].values()):
        del column["crc32"]
    (directory / RECORD).write_text(json.dumps(content))


def test_a_path_that_is_there_is_replaced() -> None:
    first, second = embeddings(3, 0), embeddings(2, 1)
    grown = AudioIndex(["x", "y", "z"], first)
    assert len(grown) == 3
    grown.add(["y", "new"], second)
    assert grown.paths == ["x", "z", "y", "new"]
    np.testing.assert_array_equal(grown.embeddings["a"], np.concatenate([first["a"][[0, 2]], second["a"]]))
    twice = AudioIndex()
    twice.add(["x", "x"], second)
    assert twice.paths == ["x"]
    np.testing.assert_array_equal(twice.embeddings["b"], second["b"][1:])


def test_windows_are_added_to_those_of_their_file_until_it_is_removed() -> None:
    index = AudioIndex(["long", "other"], embeddings(2, 0))
    index.remove(["long"])
    for start in (0.0, 20.0):
        spans = np.array([(start, start + 10), (start + 10, start + 20)])
        index.add(["long", "long"], embeddings(2, int(start)), spans, [40.0, 40.0])
    assert index.paths == ["other", "long", "long", "long", "long"]
    np.testing.assert_array_equal(index.spans(index.rows)[1:, 0], [0, 10, 20, 30])
    assert np.isnan(index.spans(index.rows)[0]).all()
    assert (len(index.files), len(index)) == (2, 5)
    index.add(["long"], embeddings(1, 9))
    assert index.paths == ["other", "long"], "a whole file takes the place of its windows"


def test_what_is_saved_is_loaded_for_the_same_weights_alone(tmp_path: Path) -> None:
    AudioIndex(["ä, b.wav", "c\udcff.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    loaded = AudioIndex.load(tmp_path, HASHES)
    assert loaded.paths == ["ä, b.wav", "c\udcff.wav"]
    np.testing.assert_array_equal(loaded.embeddings["b"], embeddings(2, 0)["b"])
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(CheckpointError, match="other weights of b"):
        AudioIndex.load(tmp_path, HASHES | {"b": "3"})
    with pytest.raises(CheckpointError, match="no such file"):
        AudioIndex.load(tmp_path / "elsewhere", HASHES)


@pytest.mark.parametrize("name", ["-0.rows", ".numbers", ".spans", ".parquet"])
def test_files_that_are_lost_or_cut_are_named(name: str, tmp_path: Path) -> None:
    AudioIndex(["a.wav", "b.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    (file,) = tmp_path.glob(f"*{name}")
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    with pytest.raises(CheckpointError, match=f"{file.name}: damaged .*index the files again"):
        AudioIndex.load(tmp_path, HASHES)
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{file.name}.*index the files again"):
        AudioIndex.load(tmp_path, HASHES)


@pytest.mark.parametrize("name", ["-0.rows", ".numbers", ".spans", ".parquet"])
@pytest.mark.parametrize(
    "damage", [lambda content: bytes(len(content)), lambda content: bytes(byte ^ 1 for byte in content)]
)
def test_bytes_that_are_not_those_that_were_written_are_told(
    damage: Callable[[bytes], bytes], name: str, tmp_path: Path
) -> None:
    AudioIndex(["a.wav", "b.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    assert check_index(tmp_path) == 2 * (4 * (8 + 5) + 4 + 2 * 8)
    grown = AudioIndex.load(tmp_path, HASHES)
    grown.add(["c.wav"], embeddings(1, 1))
    grown.save(tmp_path, HASHES)
    (file,) = tmp_path.glob(f"*{name}")
    with file.open("ab") as appended:
        appended.write(b"" if name == ".parquet" else b"of a run that was killed")
    assert len(AudioIndex.load(tmp_path, HASHES)) == 3
    file.write_bytes(damage(file.read_bytes()))
    for read in (lambda: AudioIndex.load(tmp_path, HASHES), lambda: check_index(tmp_path)):
        with pytest.raises(CheckpointError, match=f"{file.name}: damaged .*index the files again"):
            read()


def test_paths_that_changed_in_the_table_of_files_are_told(tmp_path: Path) -> None:
    AudioIndex(["a.wav", "b.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    (table,) = tmp_path.glob("*.parquet")
    content = table.read_bytes()
    assert b"b.wav" in content
    table.write_bytes(content.replace(b"b.wav", b"c.wav"))
    with pytest.raises(CheckpointError, match=f"{table.name}: damaged"):
        AudioIndex.load(tmp_path, HASHES)


def test_a_large_index_is_not_read_to_be_loaded_and_zeros_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "LARGE", 2)
    AudioIndex(["a.wav", "b.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    (file,) = tmp_path.glob("*-0.rows")
    file.write_bytes(file.read_bytes()[:16] + bytes(16))
    index = AudioIndex.load(tmp_path, HASHES)
    assert index.vectors("a", np.array([0])).any()
    with pytest.raises(CheckpointError, match=f"{file.name}: damaged .found zeros.*remove {tmp_path}, and index"):
        index.vectors("a", np.array([1]))
    with pytest.raises(CheckpointError, match=f"{file.name}: damaged .found bytes of CRC-32"):
        check_index(tmp_path)


def test_an_index_without_sums_is_read_and_has_them_once_rows_are_appended(tmp_path: Path) -> None:
    AudioIndex(["a.wav", "b.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    remove_sums(tmp_path)
    assert check_index(tmp_path) is None
    index = AudioIndex.load(tmp_path, HASHES)
    index.add(["c.wav"], embeddings(1, 1))
    index.save(tmp_path, HASHES)
    assert check_index(tmp_path) == 3 * (4 * (8 + 5) + 4 + 2 * 8)
    assert AudioIndex.load(tmp_path, HASHES).paths == ["a.wav", "b.wav", "c.wav"]


@pytest.mark.parametrize(
    ("column", "edit", "told"),
    [
        ("numbers", {"dtype": "foo"}, r"numbers\.dtype: found 'foo'"),
        ("numbers", {"dtype": "float32"}, r"numbers: .*int32 of shape \[\], not float32"),
        ("numbers", {"shape": [-1]}, r"numbers\.shape\.0: found -1"),
        ("numbers", {"rows": -1}, r"numbers\.rows: found -1"),
        ("spans", {"shape": [1]}, r"spans: .*float64 of shape \[2\], not float64 of shape \[1\]"),
        ("spans", {"dtype": "str"}, r"spans\.dtype: found 'str'"),
        ("spans", {"crc32": -1}, r"spans\.crc32: found -1"),
    ],
)
def test_an_edited_record_is_refused_with_its_field(
    tmp_path: Path, column: str, edit: dict[str, object], told: str
) -> None:
    AudioIndex(["a.wav", "b.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    content = json.loads((tmp_path / RECORD).read_text())
    content[column] |= edit
    (tmp_path / RECORD).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"collection\.json: {told}.*index the files again"):
        AudioIndex.load(tmp_path, HASHES)


def test_rows_of_numbers_that_no_file_has_are_refused(tmp_path: Path) -> None:
    AudioIndex(["a.wav", "b.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    remove_sums(tmp_path)
    (numbers,) = tmp_path.glob("*.numbers")
    for found in (-1, 2):
        numbers.write_bytes(np.array([0, found], np.int32).tobytes())
        with pytest.raises(CheckpointError, match="rows of files that it does not have"):
            AudioIndex.load(tmp_path, HASHES)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda columns: columns.clear(), r"by \[\], expected them by \['retriever'\]"),
        (
            lambda columns: columns["retriever"].update(shape=[4], crc32=None),
            r"by retriever: float32 of shape \[4\], expected .*\[\d+\]",
        ),
        (lambda columns: columns["retriever"].update(dtype="int32"), r"by retriever: int32 of .*, expected float"),
    ],
)
def test_embeddings_of_another_width_than_their_retriever_gives_are_refused(
    tmp_path: Path, edit: Callable[[dict[str, dict[str, object]]], None], told: str
) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    ensemble = Ensemble.load(bundle, "cpu")
    ensemble.index(write_sounds(tmp_path / "sounds"))
    path = ensemble.save_index() / RECORD
    content = json.loads(path.read_text())
    edit(content["columns"])
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=rf"{path}: embeddings {told}.*; index the files again"):
        len(Ensemble.load(bundle, "cpu").audio_index)
    save_file({"retriever": np.zeros((3, 4), np.float32)}, path.with_name("collection.safetensors"))
    old = {"format": 1, "retrievers": content["retrievers"], "paths": ["a", "b", "c"]}
    path.write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match=rf"{path}: embeddings by retriever: float32 of shape \[4\], expected"):
        len(Ensemble.load(bundle, "cpu").audio_index)


def test_additions_are_appended_and_what_a_killed_run_appended_is_overwritten(tmp_path: Path) -> None:
    first, second, third = (embeddings(number, seed) for seed, number in enumerate((100, 3, 2)))
    AudioIndex([f"{row}" for row in range(100)], first).save(tmp_path, HASHES)
    inode = next(tmp_path.glob("*-0.rows")).stat().st_ino
    with next(tmp_path.glob("*-0.rows")).open("ab") as file:
        file.write(b"half of a row, and more than what is added next" * 10)
    grown = AudioIndex.load(tmp_path, HASHES)
    assert len(grown) == 100
    reader = AudioIndex.load(tmp_path, HASHES)
    grown.add(["x", "y", "z"], second)
    np.testing.assert_array_equal(grown.embeddings["b"], np.concatenate([first["b"], second["b"]]))
    grown.save(tmp_path, HASHES)
    grown.add(["u", "x"], third)
    grown.save(tmp_path, HASHES)
    assert next(tmp_path.glob("*-0.rows")).stat().st_ino == inode, "no row was copied"
    again = AudioIndex.load(tmp_path, HASHES)
    assert again.paths == [*(f"{row}" for row in range(100)), "y", "z", "u", "x"]
    expected = np.concatenate([first["a"], second["a"][1:], third["a"]])
    for index in (grown, again):
        np.testing.assert_array_equal(index.embeddings["a"], expected)
    np.testing.assert_array_equal(reader.embeddings["a"], first["a"], "whoever read it before keeps what was read")
    assert len({path.name for path in tmp_path.glob("*.parquet")}) == 1


def test_rows_of_removed_files_are_dropped_once_they_are_the_most(tmp_path: Path) -> None:
    kept = {CODES: ragged([np.full((row, 2), row, np.int16) for row in range(1, 11)])}
    index = AudioIndex([f"{row}" for row in range(10)], embeddings(10, 0) | kept)
    index.save(tmp_path, HASHES, {"c": "3"})
    index.remove(["0", "5"])
    index.save(tmp_path, HASHES, {"c": "3"})
    assert (len(index), rows_on_disk(tmp_path)) == (8, 10)
    index.remove(["1", "2", "3"])
    index.save(tmp_path, HASHES, {"c": "3"})
    assert rows_on_disk(tmp_path) == 5
    for found in (index, AudioIndex.load(tmp_path, HASHES, {"c": "3"})):
        assert found.paths == ["4", "6", "7", "8", "9"]
        np.testing.assert_array_equal(found.embeddings["a"], embeddings(10, 0)["a"][[4, 6, 7, 8, 9]])
        assert [codes.tolist() for codes in found.kept[CODES]] == [[[n, n]] * n for n in (5, 7, 8, 9, 10)]


def test_two_that_save_one_after_the_other_do_not_mix_their_rows(tmp_path: Path) -> None:
    AudioIndex(["a"], embeddings(1, 0)).save(tmp_path, HASHES)
    one, other = AudioIndex.load(tmp_path, HASHES), AudioIndex.load(tmp_path, HASHES)
    one.add(["b", "c"], embeddings(2, 1))
    other.add(["d"], embeddings(1, 2))
    one.save(tmp_path, HASHES)
    reader = AudioIndex.load(tmp_path, HASHES)
    other.save(tmp_path, HASHES)
    np.testing.assert_array_equal(reader.embeddings["a"][1:], embeddings(2, 1)["a"])
    assert AudioIndex.load(tmp_path, HASHES).paths == ["a", "d"]


@pytest.mark.parametrize("replaced", [True, False])
def test_files_that_are_replaced_while_they_are_read_are_read_anew_and_damage_is_told(
    replaced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AudioIndex(["a"], embeddings(1, 0)).save(tmp_path, HASHES)
    load, calls = Column.load, []

    def replaced_before(directory: Path, record: ColumnRecord, whole: bool = True) -> Column:
        calls.append(1)
        if len(calls) == 1:
            if replaced:
                AudioIndex(["b"], embeddings(1, 1)).save(tmp_path, HASHES)
            else:
                (directory / record.file).unlink()
        return load(directory, record, whole)

    monkeypatch.setattr(Column, "load", replaced_before)
    if replaced:
        assert AudioIndex.load(tmp_path, HASHES).paths == ["b"]
    else:
        with pytest.raises(CheckpointError, match="is not there; index the files again"):
            AudioIndex.load(tmp_path, HASHES)


def test_a_kill_before_the_record_is_written_leaves_the_old_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = AudioIndex(["a.wav"], embeddings(1, 0))
    found = index.files.find("a.wav")
    assert found
    found.stamp, found.duration_s = "1:2", 3.5
    index.save(tmp_path, HASHES)

    def killed(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    for grown in (AudioIndex(["b.wav", "c.wav"], embeddings(2, 0)), AudioIndex.load(tmp_path, HASHES)):
        grown.add(["d.wav"], embeddings(1, 1))
        with monkeypatch.context() as patched:
            patched.setattr(index_module, "write_json", killed)
            with pytest.raises(KeyboardInterrupt):
                grown.save(tmp_path, HASHES)
        left = AudioIndex.load(tmp_path, HASHES)
        assert [(file.path, file.stamp, file.duration_s) for file in left.files.present()] == [("a.wav", "1:2", 3.5)]
        np.testing.assert_array_equal(left.embeddings["a"], embeddings(1, 0)["a"])
    left.add(["b.wav"], embeddings(1, 1))
    left.save(tmp_path, HASHES)
    assert len(list(tmp_path.glob("*-0.rows"))) == 1, "what killed runs left is removed"
    assert AudioIndex.load(tmp_path, HASHES).paths == ["a.wav", "b.wav"]


def test_large_indices_are_kept_at_half_the_precision_and_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "LARGE", 50)
    index = AudioIndex([f"{row}" for row in range(40)], embeddings(40, 0))
    index.save(tmp_path, HASHES)
    np.testing.assert_array_equal(AudioIndex.load(tmp_path, HASHES).embeddings["a"], embeddings(40, 0)["a"])
    index.add([f"x{row}" for row in range(40)], embeddings(40, 1))
    index.save(tmp_path, HASHES)
    expected = np.concatenate([embeddings(40, seed)["a"] for seed in (0, 1)])
    loaded = AudioIndex.load(tmp_path, HASHES)
    np.testing.assert_array_equal(loaded.embeddings["a"], expected.astype(np.float16).astype(np.float32))
    assert next(tmp_path.glob("*-0.rows")).stat().st_size == 80 * 8 * 2
    texts = {name: rows[:3] for name, rows in embeddings(3, 5).items()}
    some = loaded.similarities(texts, np.array([3, 70]))
    for name, whole in loaded.similarities(texts).items():
        np.testing.assert_allclose(some[name], whole[:, [3, 70]], atol=1e-5)
    index.add(["huge"], {name: np.full_like(rows, 1e6) for name, rows in embeddings(1, 0).items()})
    with pytest.raises(CheckpointError, match="not finite as float16"):
        index.save(tmp_path, HASHES)


def test_an_index_of_format_1_is_read_and_written_anew(tmp_path: Path) -> None:
    rows = embeddings(2, 0)
    frames = {"captioners/frames": np.array([1, 2]), "c/audio": rows["a"]}
    save_file(rows | frames, tmp_path / "collection-0.safetensors")
    codes = np.array([[1, 1], [2, 2], [3, 3]], np.int16)
    np.save(tmp_path / "collection-0.npy", codes)
    content = {
        "format": 1,
        "retrievers": HASHES,
        "embeddings": "collection-0.safetensors",
        "paths": ["a.wav", "b.wav"],
        "stamps": ["1:2", ""],
        "captioners": {"c": "3"},
        "codes": "collection-0.npy",
    }
    (tmp_path / RECORD).write_text(json.dumps(content))
    shutil.copytree(tmp_path, tmp_path / "copy")
    converted = AudioIndex.load(tmp_path, HASHES, {"c": "3"})
    converted.save(tmp_path, HASHES, {"c": "3"})
    assert not [*tmp_path.glob("*.safetensors"), *tmp_path.glob("*.npy")]
    for index in (converted, AudioIndex.load(tmp_path, HASHES, {"c": "3"})):
        assert [(file.path, file.stamp) for file in index.files.present()] == [("a.wav", "1:2"), ("b.wav", "")]
        np.testing.assert_array_equal(index.embeddings["b"], rows["b"])
        np.testing.assert_array_equal(index.kept["c/audio"], rows["a"])
        assert [one.tolist() for one in index.kept[CODES]] == [codes[:1].tolist(), codes[1:].tolist()]
    assert AudioIndex.load(tmp_path / "copy", HASHES).left_unread
    content["paths"] = ["a.wav"]
    (tmp_path / "copy" / RECORD).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="1 paths, but embeddings"):
        AudioIndex.load(tmp_path / "copy", HASHES)
    (tmp_path / "copy" / "collection-0.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"collection-0\.safetensors is not beside it"):
        AudioIndex.load(tmp_path / "copy", HASHES)
    content["format"] = 3
    (tmp_path / "copy" / RECORD).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="format 3, this version reads formats 1 and 2"):
        AudioIndex.load(tmp_path / "copy", HASHES)

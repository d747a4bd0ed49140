"""`enclap embed` writes what `Ensemble.embed` returns, row by row, whatever the batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from models.audio_sources import Recording
from models.commands import embed
from models.commands.embed import Options, run
from models.commands.options import Loading
from models.ensemble import Ensemble
from models.errors import AudioError, InputError
from models.long_audio import Windowing, cut

from ...small_bundle import write_bundle, write_sounds

CPU = Loading("cpu")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture(scope="module")
def ensemble(exported: Path) -> Ensemble:
    return Ensemble.load(exported, device="cpu")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sounds(tmp_path_factory.mktemp("sounds"), 5)


def vectors(table: pa.Table) -> np.ndarray:
    return np.stack(table["retriever"].to_numpy())


def test_a_row_for_each_file(
    exported: Path, sounds: list[Path], ensemble: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "TABLES_OF_GROUP", 2)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    output = tmp_path / "new" / "embeddings.parquet"
    run(exported, [*sounds, tmp_path / "broken.wav"], None, output, Options(batch_size=2, loading=CPU))
    file = parquet.ParquetFile(output)
    assert file.num_row_groups == 2
    table = file.read()
    assert table.schema == pa.schema(
        [("path", pa.string()), ("duration_s", pa.float64()), ("retriever", pa.list_(pa.float32(), 8))]
    )
    assert table["path"].to_pylist() == [str(path) for path in sounds]
    assert table["duration_s"].to_pylist() == [clip.duration_s for clip in ensemble.read(sounds)]
    np.testing.assert_allclose(vectors(table), ensemble.embed(sounds)["retriever"], atol=1e-5)
    assert [*output.parent.iterdir()] == [output]


def test_the_output_may_have_a_name_that_is_not_unicode(exported: Path, sounds: list[Path], tmp_path: Path) -> None:
    output = tmp_path / os.fsdecode(b"\xff\xfe.parquet")
    run(exported, sounds[:1], None, output, Options(loading=CPU))
    with output.open("rb") as file:
        assert len(parquet.read_table(file)) == 1


def test_a_row_for_each_window(exported: Path, sounds: list[Path], ensemble: Ensemble, tmp_path: Path) -> None:
    output = tmp_path / "embeddings.parquet"
    run(exported, sounds, None, output, Options(1.0, 0.5, batch_size=3, loading=CPU))
    table = parquet.read_table(output)
    windows = [(path, window) for path in sounds for window in cut(Recording.of(path, ""), Windowing(1.0, 0.5))]
    assert table["path"].to_pylist() == [str(path) for path, _ in windows]
    assert table["start_s"].to_pylist() == [window.start_s for _, window in windows]
    assert table["end_s"].to_pylist() == [window.end_s for _, window in windows]
    expected = ensemble.embed([window.recording for _, window in windows])["retriever"]
    np.testing.assert_allclose(vectors(table), expected, atol=1e-5)


def test_a_row_for_each_text(exported: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    captions = [f"a dog barks {number} times" for number in range(150)]
    (tmp_path / "captions.csv").write_text("\n".join(["caption", *captions]))
    run(exported, [], tmp_path / "captions.csv", tmp_path / "texts.parquet", Options(loading=CPU))
    table = parquet.read_table(tmp_path / "texts.parquet")
    assert table["text"].to_pylist() == captions
    np.testing.assert_allclose(vectors(table), ensemble.embed_texts(captions)["retriever"], atol=1e-5)


def test_distances_are_those_that_retrieval_ranks_by(ensemble: Ensemble, sounds: list[Path]) -> None:
    ensemble.index(sounds)
    audio, text = ensemble.embed(sounds, batch_size=2)["retriever"], ensemble.embed_texts(["rain"])["retriever"]
    distances = np.linalg.norm(audio - text, axis=1)
    np.testing.assert_allclose(ensemble.similarity(["rain"])[0], -distances, atol=1e-4)
    assert ensemble.embed([])["retriever"].shape == ensemble.embed_texts([])["retriever"].shape == (0, 8)


def test_neither_codec_nor_captioners_are_loaded(exported: Path, sounds: list[Path]) -> None:
    fresh = Ensemble.load(exported, device="cpu")
    fresh.embed_texts(["rain"])
    fresh.embed(sounds[:1])
    assert {"codec", "captioners", "detector", "retrievers"} & {*fresh.__dict__} == {"retrievers"}
    with pytest.raises(InputError, match="texts: the text in place 2 of 2 is blank"):
        fresh.embed_texts(["rain", "?!"])
    with pytest.raises(InputError, match="texts: found one str, expected a list"):
        fresh.embed_texts("rain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paths": [], "texts": None}, "found neither audio paths nor --texts"),
        ({"texts": "captions.csv"}, "found audio paths and --texts, expected one"),
        ({"paths": ["gone.wav"]}, "gone.wav: no such file"),
        ({"paths": [], "texts": "gone.csv"}, "gone.csv: no such file"),
        ({"paths": [], "texts": "captions.csv", "options": Options(1.0)}, "--window cuts audio"),
        ({"options": Options(9.0)}, "--window: found 9.0"),
        ({"output": "captions.csv", "paths": [], "texts": "captions.csv"}, "is one of the files to read"),
        ({"output": "."}, "is a directory"),
        ({"output": "a.csv"}, "found a.csv, expected a name that ends with .parquet"),
    ],
)
def test_what_cannot_be_done_is_told_before_a_bundle_is_loaded(
    exported: Path,
    sounds: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "captions.csv").write_text("caption\nrain falls\n")
    monkeypatch.setattr(embed, "load_ensemble", lambda *_, **__: pytest.fail("the bundle was loaded"))
    monkeypatch.chdir(tmp_path)
    paths = [Path(path) for path in arguments.get("paths", sounds)]
    texts = Path(arguments["texts"]) if arguments.get("texts") else None
    with pytest.raises(InputError, match=message):
        run(exported, paths, texts, Path(arguments.get("output", "a.parquet")), arguments.get("options", Options()))
    assert [path.name for path in tmp_path.iterdir()] == ["captions.csv"]


def test_nothing_is_written_where_nothing_can_be_read(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(AudioError, match="none of 1 files could be read"):
        run(exported, [tmp_path / "broken.wav"], None, tmp_path / "a.parquet", Options(loading=CPU))
    assert [path.name for path in tmp_path.iterdir()] == ["broken.wav"]

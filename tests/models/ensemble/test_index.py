"""Searching a collection: exact by either way, kept on disk, refused where weights differ."""

from pathlib import Path

import numpy as np
import pytest

from models.ensemble.index import AudioIndex
from models.files import CheckpointError

WEIGHTS = {"a": 0.7, "b": 0.3}
HASHES = {"a": "1", "b": "2"}


def embeddings(number: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(number, 8)).astype(np.float32), "b": rng.normal(size=(number, 5)).astype(np.float32)}


@pytest.mark.parametrize(("number", "top_k"), [(3000, 10), (3000, 200), (70, 10), (5, 10)])
def test_the_nearest_are_those_of_scoring_all(number: int, top_k: int) -> None:
    collection = AudioIndex([str(row) for row in range(number)], embeddings(number, 0))
    for seed in range(5):
        texts = embeddings(1, 100 + seed)
        similarities = collection.similarities(texts)
        fused = sum(weight * similarities[name][0] for name, weight in WEIGHTS.items())
        rows, sums = collection.nearest({name: one[0] for name, one in texts.items()}, WEIGHTS, top_k)
        assert rows.tolist() == np.argsort(-fused, kind="stable")[:top_k].tolist()
        np.testing.assert_allclose(sums, fused[rows], atol=1e-4)


def test_what_is_added_later_is_found() -> None:
    first, second = embeddings(100, 0), embeddings(30, 1)
    collection = AudioIndex([f"a{row}" for row in range(100)], first)
    text = {name: rows[7] for name, rows in second.items()}
    collection.nearest(text, WEIGHTS, 1)
    collection.add([f"b{row}" for row in range(30)], second)
    rows, _ = collection.nearest(text, WEIGHTS, 1)
    assert collection.paths[rows[0]] == "b7"


def test_lists_grow_where_retrievers_disagree() -> None:
    """Each retriever's nearest hundred are the other's farthest; the best of the sum are in the middle of both."""
    line = np.linspace(0, 1, 1001, dtype=np.float32)[:, None]
    curved = {"a": line**2, "b": (1 - line) ** 2}
    collection = AudioIndex([str(row) for row in range(1001)], curved)
    rows, _ = collection.nearest({"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}, {"a": 1, "b": 1}, 3)
    assert sorted(rows.tolist()) == [499, 500, 501]


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


def test_what_is_saved_is_loaded_for_the_same_weights_alone(tmp_path: Path) -> None:
    AudioIndex(["ä, b.wav", "c.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    loaded = AudioIndex.load(tmp_path, HASHES)
    assert loaded.paths == ["ä, b.wav", "c.wav"]
    np.testing.assert_array_equal(loaded.embeddings["b"], embeddings(2, 0)["b"])
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(CheckpointError, match="other weights of b"):
        AudioIndex.load(tmp_path, HASHES | {"b": "3"})
    with pytest.raises(CheckpointError, match="no such file"):
        AudioIndex.load(tmp_path / "elsewhere", HASHES)
    AudioIndex(["c.wav"], embeddings(1, 0)).save(tmp_path / "other", HASHES)
    (ours,), (others,) = (folder.glob("*.safetensors") for folder in (tmp_path, tmp_path / "other"))
    others.replace(ours)
    with pytest.raises(CheckpointError, match="2 paths"):
        AudioIndex.load(tmp_path, HASHES)
    ours.unlink()
    with pytest.raises(CheckpointError, match=f"{ours.name} is not beside it"):
        AudioIndex.load(tmp_path, HASHES)


def test_saved_again_it_replaces_the_old_and_a_kill_between_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = AudioIndex(["a.wav"], embeddings(1, 0))
    collection.stamps["a.wav"] = "1:2"
    collection.save(tmp_path, HASHES)

    def killed(path: Path, content: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("models.ensemble.index.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            AudioIndex(["b.wav", "c.wav"], embeddings(2, 0)).save(tmp_path, HASHES)
    left = AudioIndex.load(tmp_path, HASHES)
    assert (left.paths, left.stamps) == (["a.wav"], {"a.wav": "1:2"})
    left.add(["b.wav"], embeddings(1, 1))
    left.save(tmp_path, HASHES)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    again = AudioIndex.load(tmp_path, HASHES)
    assert (again.paths, again.stamps) == (["a.wav", "b.wav"], {"a.wav": "1:2", "b.wav": ""})

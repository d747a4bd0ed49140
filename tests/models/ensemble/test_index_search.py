"""Ranking the rows of an index: exactly, by inverted lists, among some files, and away from what is not wanted."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from models.ensemble import approximate, index_search
from models.ensemble.approximate import InvertedLists
from models.ensemble.index import AudioIndex
from models.ensemble.index_search import IndexSearch, Ranking, less_unwanted
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.files import CheckpointError

HASHES = {"a": "1", "b": "2"}
WIDTHS = {"a": 16, "b": 24}
CLUSTERS, ROWS = 50, 6000


@dataclass(frozen=True)
class Space:
    """Clusters that two retrievers see alike, and points in them."""

    centres: dict[str, np.ndarray]

    @classmethod
    def of(cls, seed: int) -> "Space":
        rng = np.random.default_rng(seed)
        return cls({name: rng.normal(size=(CLUSTERS, width)) for name, width in WIDTHS.items()})

    def points(self, number: int, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        cluster = rng.integers(CLUSTERS, size=number)
        return {
            name: (centres[cluster] + 0.4 * rng.normal(size=(number, centres.shape[1]))).astype(np.float32)
            for name, centres in self.centres.items()
        }


SPACE = Space.of(0)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_search, "DEPTHS", (200, 400))
    for module in (approximate, index_search):
        monkeypatch.setattr(module, "UNLISTED", 100)


def indexed(directory: Path) -> AudioIndex:
    index = AudioIndex([f"{row}" for row in range(ROWS)], SPACE.points(ROWS, 1))
    index.save(directory, HASHES)
    return AudioIndex.load(directory, HASHES)


def fusion(normalisation: str) -> RetrievalFusion:
    return RetrievalFusion(weights={"a": 0.7, "b": 0.3}, normalisation=normalisation)


def one(queries: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {name: rows[[row]] for name, rows in queries.items()}


@pytest.mark.parametrize(("normalisation", "dimensions"), [("none", 128), ("z", 128), ("z", 12)])
def test_lists_reach_the_recall_that_is_asked_for_and_say_so(
    normalisation: str, dimensions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "DIMENSIONS", dimensions)
    index, queries = indexed(tmp_path), SPACE.points(40, 2)
    search = IndexSearch(index, fusion(normalisation))
    record = search.make_lists(tmp_path, queries, target=0.97)
    assert record.recall >= 0.97
    assert (record.rows, record.queries) == (ROWS, 40)
    assert search.lists
    loaded = InvertedLists.load(tmp_path, index)
    assert loaded
    again = IndexSearch(index, fusion(normalisation), loaded)
    looked_at, found = [], 0.0
    for row in range(40):
        query = one(queries, row)
        exact = search.fusion.join(index.similarities(query))[0]
        best = again.nearest(query, 10)
        found += len({*best.rows} & {*np.argsort(-exact)[:10]}) / 10 / 40
        np.testing.assert_allclose(best.values, exact[best.rows], atol=0.05 if normalisation == "z" else 1e-4)
        assert (np.diff(best.values) <= 0).all()
        vectors = {name: rows[0] for name, rows in query.items()}
        looked_at.append(len(loaded.candidates(vectors, np.ones(ROWS, bool), record.depth, record.probes)))
    assert found == pytest.approx(record.recall)
    assert max(looked_at) < ROWS / 10, "few rows are compared with a query"


def test_a_recall_out_of_reach_is_reported_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where few candidates are chosen by a single principal component of each row."""
    monkeypatch.setattr(index_search, "DEPTHS", (10, 12))
    monkeypatch.setattr(index_search, "PER_RESULT", 1)
    monkeypatch.setattr(approximate, "DIMENSIONS", 1)
    search = IndexSearch(indexed(tmp_path), fusion("none"))
    record = search.make_lists(tmp_path, SPACE.points(10, 2), target=0.99)
    assert 0 < record.recall < 0.99
    assert search.lists
    assert (record.depth, record.probes) == (12, search.lists.choices_of_probes()[-1]), "all was tried"


def test_rows_added_later_are_found_before_and_after_they_are_in_the_lists(tmp_path: Path) -> None:
    index, queries = indexed(tmp_path), SPACE.points(20, 2)
    search = IndexSearch(index, fusion("none"))
    search.make_lists(tmp_path, queries)
    first = search.lists
    assert first
    late = SPACE.points(120, 3)
    index.add([f"late-{row}" for row in range(120)], late)
    assert not first.suffice(index)
    assert search.nearest(one(late, 7), 1).rows == [ROWS + 7], "not saved yet"
    index.save(tmp_path, HASHES)
    search.make_lists(tmp_path, queries)
    assert search.lists
    assert search.lists.record.rows == ROWS + 120
    assert search.lists.record.trained_rows == ROWS, "clusters are not sought anew for a few rows"
    assert search.lists.suffice(index)
    assert search.nearest(one(late, 7), 1).rows == [ROWS + 7]
    assert len(list(tmp_path.glob("*.faiss"))) == 2, "the lists of before are removed"


def test_lists_of_other_rows_are_not_used_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    index = indexed(tmp_path)
    IndexSearch(index, fusion("none")).make_lists(tmp_path, SPACE.points(10, 2))
    index.remove([f"{row}" for row in range(3100)])
    file = next(tmp_path.glob("*.faiss"))
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match=r"missing or damaged; remove lists\.json"):
        InvertedLists.load(tmp_path, AudioIndex.load(tmp_path, HASHES))
    file.write_bytes(whole)
    index.save(tmp_path, HASHES)
    assert InvertedLists.load(tmp_path, AudioIndex.load(tmp_path, HASHES)) is None, "rows have other numbers"


@pytest.mark.parametrize("share", [0.005, 0.3], ids=["few", "many"])
@pytest.mark.parametrize("listed", [True, False])
def test_filters_apply_before_the_ranking(share: float, listed: bool, tmp_path: Path) -> None:
    index, queries = indexed(tmp_path), SPACE.points(20, 2)
    search = IndexSearch(index, fusion("z"))
    if listed:
        search.make_lists(tmp_path, queries)
    allowed = np.random.default_rng(5).random(ROWS) < share
    recall = 0.0
    for row in range(20):
        query = one(queries, row)
        exact = np.where(allowed, search.fusion.join(index.similarities(query))[0], -np.inf)
        best = search.nearest(query, 10, allowed)
        assert allowed[best.rows].all()
        assert len(best.rows) == 10
        recall += len({*best.rows} & {*np.argsort(-exact)[:10]}) / 10 / 20
    assert recall >= (0.95 if listed and share == 0.3 else 1)


def test_each_file_counts_by_its_best_window_and_lists_go_deeper_for_it(tmp_path: Path) -> None:
    """Each file has 300 windows at one place, more than the candidates that are looked up first."""
    places, number = SPACE.points(20, 1), np.repeat(np.arange(20), 300)
    rng = np.random.default_rng(0)
    rows = {
        name: (points[number] + 0.01 * rng.normal(size=(ROWS, points.shape[1]))).astype(np.float32)
        for name, points in places.items()
    }
    index = AudioIndex()
    spans = np.stack([np.arange(ROWS) % 300, np.arange(ROWS) % 300 + 1.0], axis=1)
    index.add([f"{file}" for file in number], rows, spans)
    index.save(tmp_path, HASHES)
    search, query = IndexSearch(index, fusion("none")), SPACE.points(1, 2)
    exact = search.nearest(query, 10, files=index.numbers)
    search.make_lists(tmp_path, SPACE.points(10, 2))
    found = search.nearest(query, 10, files=index.numbers)
    assert len({*index.numbers[found.rows]}) == 10
    assert index.numbers[found.rows].tolist() == index.numbers[exact.rows].tolist()
    np.testing.assert_allclose(found.values, exact.values, atol=1e-3)
    assert len(search.nearest(query, 50, files=index.numbers).rows) == 20, "there are no more files"
    assert len({*index.numbers[search.nearest(query, 10).rows]}) == 1


def test_ranks_need_all_rows(tmp_path: Path) -> None:
    index, query = indexed(tmp_path), SPACE.points(1, 2)
    search = IndexSearch(index, fusion("rank"))
    search.make_lists(tmp_path, SPACE.points(10, 2))
    exact = search.fusion.join(index.similarities(query))[0]
    assert search.nearest(query, 5).rows.tolist() == np.argsort(-exact, kind="stable")[:5].tolist()


def test_equal_values_keep_the_order_of_the_rows() -> None:
    ranking = Ranking(np.array([4, 7, 9]), np.array([1.0, 2.0, 1.0]))
    assert ranking.best(3, None).rows.tolist() == [7, 4, 9]
    assert ranking.best(3, np.array([0, 0, 0, 0, 1, 0, 0, 1, 0, 2])).rows.tolist() == [7, 9]


def test_what_is_not_wanted_lowers_the_similarity_by_how_far_it_is_above_the_mean() -> None:
    wanted, unwanted = np.array([3.0, 3.0, 1.0, 1.0]), np.array([5.0, 1.0, 1.0, 1.0])
    found = less_unwanted(np.stack([wanted, unwanted]), np.stack([wanted, unwanted]))
    z = (5 - 2) / np.std(unwanted)
    np.testing.assert_allclose(found, [1 - index_search.MARGIN * z, 1, -1, -1])
    np.testing.assert_array_equal(less_unwanted(wanted[None], wanted[None]), wanted)

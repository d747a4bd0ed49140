"""Features of a store come to a node's disk around their use, and take no more of it than they may."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from ray_jobs.features.dataset import Features, StoredMatrices, read_features
from ray_jobs.features.files import FeaturesError
from ray_jobs.features.shard_cache import StoreUnreachableError
from ray_jobs.run import storage
from ray_jobs.training.batching import shuffle_in_windows

from ..object_store import CREDENTIALS, ObjectStore
from .clips import clips, write

SHARDS, CLIPS = 40, 8  # of each shard


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    found = ObjectStore()
    yield found
    found.stop()


@pytest.fixture(params=["file", "s3"])
def split(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A split of 40 shards in a store, nothing of which is on this node."""
    uri = f"file://{tmp_path}/store"
    if request.param == "s3":
        uri = request.getfixturevalue("server").uri(tmp_path.name)
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "maker"))
    folder = storage.working_copy(uri, "run") / "features" / "sounds" / "train"
    for number in range(SHARDS):
        write(folder / f"{number:05d}.arrow", clips(CLIPS, number))
    storage.push(folder)
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "node"))
    return folder


@contextmanager
def gone(split: Path, server: ObjectStore) -> Iterator[None]:
    """The store cannot be reached in the block."""
    uri = urlsplit(storage.uri(split))
    if uri.scheme == "s3":
        server.is_open = False
        yield
        server.is_open = True
    else:
        store = Path(uri.path).parents[3]
        store.rename(store.with_name("elsewhere"))
        yield
        store.with_name("elsewhere").rename(store)


def shard_bytes(split: Path) -> int:
    return max(path.stat().st_size for path in split.iterdir())


def on_disk(split: Path) -> list[Path]:
    folder = storage.here(split)
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []


def matrices(features: Features) -> StoredMatrices:
    assert isinstance(features.log_mels, StoredMatrices)
    return features.log_mels


def check(features: Features, clip: int) -> None:
    expected = clips(CLIPS, clip // CLIPS)[clip % CLIPS]
    assert features.clip_ids[clip] == expected["clip_id"]
    np.testing.assert_array_equal(features.codes[clip], expected["codes"])
    np.testing.assert_array_equal(features.log_mels[clip], expected["log_mel"])


def test_a_corpus_larger_than_its_bound_streams_window_by_window(split: Path) -> None:
    most = 24 * shard_bytes(split)
    features = read_features([split], cache_bytes=most)
    assert not on_disk(split), "clips and captions are known without a shard"
    features.check_cache(6, "resources.feature_cache_gb")
    for epoch in range(2):
        order = shuffle_in_windows(np.asarray(features.shards), 4 * CLIPS, np.random.default_rng(epoch))
        features.expect(order)
        seen = set()
        for clip in order:
            check(features, int(clip))
            seen.add(int(clip))
            assert len(on_disk(split)) * shard_bytes(split) <= most
        assert len(seen) == SHARDS * CLIPS
    assert matrices(features).shards.get.cache_info().currsize <= 6, "a shard that is mapped takes disk, too"


def test_shards_are_fetched_ahead_in_the_order_of_the_epoch(split: Path) -> None:
    features = read_features([split], cache_bytes=24 * shard_bytes(split))
    cache = matrices(features).shards.cache
    features.expect(np.arange(SHARDS * CLIPS)[::-1])
    check(features, SHARDS * CLIPS - 1)
    assert sorted(cache._coming) == list(range(33, 39)), "the next six"
    for coming in cache._coming.values():
        coming.result()
    assert {path.name for path in on_disk(split)} == {f"{number:05d}.arrow" for number in range(33, 40)}
    # An epoch that is resumed begins in its middle.
    features.expect(np.arange(SHARDS * CLIPS))
    check(features, 20 * CLIPS)
    assert min(cache._coming) >= 14


def test_a_shard_that_another_process_removed_is_fetched_again(split: Path) -> None:
    features = read_features([split], cache_bytes=24 * shard_bytes(split))
    shards = matrices(features).shards
    check(features, 0)
    storage.here(split / "00001.arrow").unlink(missing_ok=True)
    fetch, removed = shards.cache.fetch, list[Path]()

    def fetch_and_lose_once(number: int) -> Path:
        local = fetch(number)
        if not removed:
            removed.append(local)
            local.unlink()
        return local

    shards.cache.fetch = fetch_and_lose_once  # type: ignore[method-assign]
    check(features, CLIPS)
    assert removed


def test_without_a_bound_everything_stays(split: Path) -> None:
    features = read_features([split])
    for clip in range(0, len(features), CLIPS):
        check(features, clip)
    assert len(on_disk(split)) == SHARDS


def test_a_disk_that_does_not_hold_a_window_is_refused(split: Path) -> None:
    features = read_features([split], cache_bytes=8 * shard_bytes(split))
    with pytest.raises(FeaturesError, match=r"members\.r\.resources\.feature_cache_gb: found .* 2 shards .* 5, the"):
        features.check_cache(5, "members.r.resources.feature_cache_gb")


def test_a_store_that_vanishes_in_an_epoch_is_named_and_the_epoch_goes_on_when_it_is_back(
    split: Path, tmp_path: Path, server: ObjectStore
) -> None:
    features = read_features([split], cache_bytes=8 * shard_bytes(split))
    check(features, 0)
    with gone(split, server), pytest.raises(StoreUnreachableError) as error:
        check(features, 30 * CLIPS)
    assert str(error.value).startswith(f"{storage.uri(split / '00030.arrow')}: cannot be fetched: ")
    assert str(error.value).endswith("once the store can be reached, the same command resumes")
    check(features, 30 * CLIPS)

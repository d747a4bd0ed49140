"""Every door of an ensemble names the argument that it cannot use, before any member is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.arguments import batched
from models.captioner.model import Captioner
from models.ensemble import Ensemble, Reranking, Where
from models.ensemble.captioner_fusion import FusionWithCaptioners
from models.errors import InputError
from models.settings import TokenEnsembleConfig

from ...small_bundle import write_bundle, write_sounds

Ask = Callable[[Any, list[Path]], object]  # of an ensemble and sounds


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return Ensemble.load(write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_sounds(tmp_path_factory.mktemp("sounds"), 2)


@pytest.mark.parametrize(
    ("ask", "argument"),
    [
        (lambda e, _: e.caption(None), "sources"),
        (lambda e, s: e.caption(str(s[0])), "sources"),
        (lambda e, s: e.caption(s, seed=-1), "seed"),
        (lambda e, s: e.caption(s, seed=0.5), "seed"),
        (lambda e, s: e.caption(s, seed=False), "seed"),
        (lambda e, s: e.caption(s, seed="1"), "seed"),
        (lambda e, s: e.caption(s, batch_size=0), "batch_size"),
        (lambda e, s: e.caption(s, window_s="1"), "window_s"),
        (lambda e, s: e.caption(s, hop_s=1.0), "hop_s"),
        (lambda e, s: e.caption([s]), "audio 1 of 1"),
        (lambda e, _: e.caption(np.zeros(4)), "audio 1 of 4"),
        (lambda e, s: e.embed(s[0]), "sources"),
        (lambda e, s: e.embed(s, batch_size=-3), "batch_size"),
        (lambda e, _: e.embed_texts("rain"), "texts"),
        (lambda e, _: e.embed_texts(["rain", None]), "texts"),
        (lambda e, _: e.embed_texts(["rain", " "]), "texts"),
        (lambda e, s: e.index(s[0]), "sources"),
        (lambda e, s: e.index(s, names="ab"), "names"),
        (lambda e, s: e.index(s, names=["a", "a"]), "names"),
        (lambda e, s: e.index(s, names=[1, 2]), "names"),
        (lambda e, s: e.index(s, window_s=0), "window_s"),
        (lambda e, _: e.retrieve("rain", top_k=0), "top_k"),
        (lambda e, _: e.retrieve("rain", top_k=1.5), "top_k"),
        (lambda e, _: e.retrieve("rain", top_k=True), "top_k"),
        (lambda e, s: e.similar(s[0], top_k=-1), "top_k"),
    ],
)
def test_an_argument_is_named(ensemble: Ensemble, sounds: list[Path], ask: Ask, argument: str) -> None:
    fresh = Ensemble.load(ensemble.directory, device="cpu")
    with pytest.raises(InputError, match=f"^{argument}: found|^{argument}: the text"):
        ask(fresh, sounds)
    assert not {"codec", "retrievers", "captioners"} & {*fresh.__dict__}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e, _: e.retrieve(7), "found int"),
        (lambda e, _: e.retrieve(["rain"]), "found list"),
        (lambda e, _: e.retrieve(" ?"), "the query is blank"),
        (lambda e, _: e.retrieve("rain", exclude=""), "blank"),
        (lambda e, _: e.retrieve("rain", exclude=3), "exclude: found int"),
        (lambda e, _: e.retrieve("rain", where="a*"), "where: found str"),
        (lambda e, _: e.similarity("rain"), "found one str"),
        (lambda e, _: e.similarity(["rain", b"wind"]), "found bytes"),
        (lambda e, s: e.similar([s[0]]), "found list, expected a path"),
        (lambda e, s: e.similar(s[0], where={"name": "a"}), "where: found dict"),
    ],
)
def test_what_is_asked_of_an_index_is_checked(ensemble: Ensemble, sounds: list[Path], ask: Ask, message: str) -> None:
    ensemble.index(path for path in sounds)
    with pytest.raises(InputError, match=message):
        ask(ensemble, sounds)


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, ["a", "b", "c"]),
        ({"captioners": ["b"]}, ["b"]),
        ({"captioners": ["c/beam", "b"]}, ["b", "c"]),
        ({"captioners": ["a+b"]}, ["a", "b"]),
        ({"captioners": ["b"], "weights": {"retriever": 0.5, "decoder": 0.25, "likelihood/a": 0.25}}, ["a", "b"]),
        ({"captioners": ["b"], "weights": {"retriever": 0.5, "decoder": 0.25, "consensus/ngram": 0.25}}, list("abc")),
    ],
)
def test_captioners_that_nothing_is_chosen_from_are_not_loaded(
    ensemble: Ensemble, changes: dict[str, Any], used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reranking = Reranking.model_validate({"weights": {"retriever": 0.75, "decoder": 0.25}, **changes})
    made = ensemble.manifest.model_copy(
        update={
            "captioners": dict.fromkeys("abc", "retriever"),
            "token_ensembles": {"a+b": TokenEnsembleConfig(members=["a", "b"])},
            "reranking": reranking,
        }
    )
    monkeypatch.setattr(Captioner, "load", lambda path: torch.nn.Identity())
    assert [*Ensemble(made, ensemble.directory, "cpu").captioners] == used
    likely = FusionWithCaptioners(weights={"retriever": 0.5, "c/likelihood": 0.5}, depth=1)
    made = made.model_copy(update={"retrieval_with_captioners": likely})
    assert [*Ensemble(made, ensemble.directory, "cpu").captioners] == sorted({*used, "c"})
    assert [*Ensemble(made, ensemble.directory, "cpu", ask_captioners=False).captioners] == used


def test_only_what_is_needed_is_loaded(ensemble: Ensemble, sounds: list[Path]) -> None:
    ensemble.index(sounds)
    ensemble.save_index()
    fresh = Ensemble.load(ensemble.directory, device="cpu")
    assert fresh.retrieve("rain")
    assert fresh.similar(sounds[0])
    loaded = {"codec", "captioners", "detector", "log_mel", "retrievers"} & {*fresh.__dict__}
    assert loaded == {"log_mel", "retrievers"}, "neither a codec nor captioners to search by text or by sound"


NOISE = np.random.default_rng(0).normal(size=2000).astype(np.float32)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda one: one.embed([(NOISE, 10**12)]), "audio 1 of 1: found the sample rate 1000000000000"),
        (lambda one: one.embed([(np.empty((0, 2)), 16_000)]), "audio 1 of 1: holds no samples"),
        (lambda one: one.index([(NOISE, 16_000)], [""]), "names: found an empty one in place 1 of 1"),
        (lambda one: one.embed_texts(["a \ud800"]), "texts: the text in place 1 of 1 is not Unicode"),
        (lambda one: one.texts_under_metric(["a \ud800"]), "query 1 of 1 is not Unicode"),
        (lambda _: Where(name=Path("a")), "name: found PosixPath"),  # type: ignore[arg-type]
        (lambda _: Where(folder="a\0b"), "folder: found 'a.x00b', expected a path"),
        (lambda _: Ensemble.load(None), "directory: found None, expected the path"),  # type: ignore[arg-type]
        (lambda _: Ensemble.load(b"a"), "directory: found b'a', expected the path"),  # type: ignore[arg-type]
    ],
)
def test_what_only_libraries_refused_is_named(ensemble: Ensemble, ask: Callable[[Any], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(ensemble)


def test_batches_of_any_size_are_of_what_there_is() -> None:
    assert [*batched("abc", 10**30)] == [["a", "b", "c"]]


def test_seeds_of_numpy_are_seeds(ensemble: Ensemble) -> None:
    seed: Any = np.int64(3)
    assert ensemble.caption([(NOISE, 16_000)], seed) == ensemble.caption([(NOISE, 16_000)], 3)

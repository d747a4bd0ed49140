"""Caption values against aac-metrics itself, its published vector, and what is said where its parts are missing."""

import csv
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.errors import TooFewClipsError
from models.metrics import captions as metrics
from models.metrics import java_parts
from models.metrics.captions import (
    CaptionInputError,
    MissingPartError,
    best_preprocessing,
    candidate_values,
    caption_values,
    missing_parts,
    plain_tokens,
)

CANDIDATES = ["a man is speaking", "rain falls"]
REFERENCES = [
    ["a man speaks", "someone speaks", "a man is speaking while a bird is chirping in the background"],
    ["rain is falling hard on a surface"],
]
NO_JAVA = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "vocab")


Example = Callable[..., tuple[list[list[str]], list[list[str]]]]


@pytest.fixture
def example(shared_data: Path) -> Example:
    """Read an example of aac-metrics: the candidates and the references of each clip."""
    return partial(read_example, shared_data / "aac_metrics")


def read_example(
    folder: Path, name: str = "example_1", rows: int | None = None
) -> tuple[list[list[str]], list[list[str]]]:
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))[:rows]
    own = [column for column in table[0] if "predicted" in column]
    return [[row[c] for c in own] for row in table], [[row[f"caption_{n}"] for n in range(1, 6)] for row in table]


def plain(texts: list[str]) -> list[str]:
    return [" ".join(plain_tokens(text)) for text in texts]


def by_the_library(
    candidates: list[str], references: list[list[str]], metrics: Sequence[str], preprocess: Any = plain, **java: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(corpus values, values of each clip) of aac-metrics' own evaluation."""
    from aac_metrics import evaluate

    return evaluate(candidates, references, preprocess=preprocess, metrics=metrics, **java)


# --- values --------------------------------------------------------------------------------------------------------


def test_the_published_vector() -> None:
    scores = caption_values(CANDIDATES, REFERENCES, NO_JAVA)
    np.testing.assert_allclose(scores.per_clip["cider_d"], [1.3641, 0.5587], atol=5e-5)
    assert scores.corpus["cider_d"] == pytest.approx(0.9614, abs=5e-5)
    assert scores.preprocessing == "plain"
    assert not scores.absent
    assert list(scores.per_clip) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"]
    assert scores.corpus["vocab.cands"] == 6


def test_one_candidate_a_clip_is_the_metric_itself() -> None:
    values = candidate_values([[text] for text in CANDIDATES], REFERENCES)
    np.testing.assert_allclose(np.concatenate(values), [1.3641, 0.5587], atol=5e-5)


@pytest.mark.parametrize("name", ["example_1", "example_2"])
def test_equals_the_library_on_its_own_examples(name: str, example: Example) -> None:
    candidates, references = example(name)
    first = [clip[0] for clip in candidates]
    corpus, clips = by_the_library(first, references, NO_JAVA)
    scores = caption_values(first, references, NO_JAVA)
    assert corpus.keys() == scores.corpus.keys()
    for metric, value in scores.corpus.items():
        assert value == pytest.approx(float(corpus[metric]), abs=1e-6), metric
    assert clips.keys() - {"vocab.cands"} == set(scores.per_clip)
    for column in map(str, scores.per_clip):
        np.testing.assert_allclose(scores.per_clip[column], clips[column], atol=1e-6, err_msg=column)


@pytest.mark.parametrize("metric", ["cider_d", "rouge_l", "bleu_1", "bleu_4"])
def test_several_candidates_equal_the_library_on_its_own_example(metric: str, example: Example) -> None:
    candidates, references = example("example_2", 300)
    found = np.stack(candidate_values(candidates, references, metric))
    for place in range(found.shape[1]):
        _, clips = by_the_library([clip[place] for clip in candidates], references, [metric])
        np.testing.assert_allclose(found[:, place], clips[metric], atol=1e-6)


@pytest.mark.parametrize("metric", ["cider_d", "rouge_l", "bleu_4"])
def test_every_candidate_has_the_value_it_has_alone(metric: str, example: Example) -> None:
    read, references = example(rows=60)
    candidates = [clip[0] for clip in read]
    rng = np.random.default_rng(0)
    # of every clip: none of the others, some of them, and its own reference twice
    ragged = [[*rng.choice(candidates, rng.integers(0, 4)), clip[0], clip[0]] for clip in references]
    found = candidate_values(ragged, references, metric)
    assert [len(clip) for clip in found] == [len(clip) for clip in ragged]
    for place in (0, -1):
        alone = caption_values([clip[place] for clip in ragged], references, [metric]).per_clip[metric]
        np.testing.assert_allclose([clip[place] for clip in found], alone, rtol=1e-12)


def test_candidates_do_not_move_the_idf() -> None:
    few = candidate_values([[text] for text in CANDIDATES], REFERENCES)
    many = candidate_values([[CANDIDATES[0], *REFERENCES[0] * 5], [CANDIDATES[1]]], REFERENCES)
    assert (few[0][0], few[1][0]) == (many[0][0], many[1][0])


def test_a_clip_may_have_no_candidate() -> None:
    assert [len(clip) for clip in candidate_values([[], ["rain"]], REFERENCES)] == [0, 1]
    assert [len(clip) for clip in candidate_values([[], []], REFERENCES)] == [0, 0]


def test_plain_tokens() -> None:
    assert plain_tokens('A dog\'s "high-pitched" bark, twice... and (then) RAIN!') == [
        "a",
        "dog's",
        "high-pitched",
        "bark",
        "twice",
        "and",
        "then",
        "rain",
    ]
    punctuated = caption_values(["A man is speaking.", "Rain, falls!"], REFERENCES, ["cider_d"])
    np.testing.assert_allclose(punctuated.corpus["cider_d"], 0.9614, atol=5e-5)


def test_wordless_candidates_are_worth_nothing() -> None:
    scores = caption_values(["", "..."], REFERENCES, NO_JAVA)
    assert scores.per_clip["cider_d"].tolist() == [0, 0]
    assert scores.per_clip["rouge_l"].tolist() == [0, 0]
    assert (scores.corpus["vocab.cands"], "vocab.f1" in scores.corpus) == (0, False)
    assert "no word" in scores.absent["vocab.f1"]


# --- refusals ------------------------------------------------------------------------------------------------------


def test_cider_d_of_one_clip_is_refused_and_explained() -> None:
    for call in (
        lambda: caption_values(CANDIDATES[:1], REFERENCES[:1]),
        lambda: candidate_values([CANDIDATES], REFERENCES[:1]),
    ):
        with pytest.raises(TooFewClipsError, match="two clips or more"):
            call()
    assert caption_values(CANDIDATES[:1], REFERENCES[:1], ["rouge_l"]).corpus["rouge_l"] > 0


@pytest.mark.parametrize(
    ("candidates", "references", "message", "index"),
    [
        ([], [], "no clip", None),
        (["a", "b"], [["a"]], "2 clips and references of 1", None),
        (["a", "b"], [["a"], []], "clip 1 has no reference", 1),
        (["a", "b"], [["a"], ["b", " . "]], "clip 1 has a reference without a word", 1),
    ],
)
def test_bad_inputs_are_named(
    candidates: list[str], references: list[list[str]], message: str, index: int | None
) -> None:
    for call in (
        lambda: caption_values(candidates, references, ["cider_d"]),
        lambda: candidate_values([[text] for text in candidates], references),
    ):
        with pytest.raises(CaptionInputError, match=message) as caught:
            call()
        assert caught.value.index == index


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(CaptionInputError, match="cider_r"):
        caption_values(CANDIDATES, REFERENCES, ["cider_r"])
    for metric in ("vocab", "spider", "spider_fl"):
        with pytest.raises(CaptionInputError, match=metric):
            candidate_values([["a"], ["b"]], REFERENCES, metric)


# --- what is missing, and what is not ------------------------------------------------------------------------------


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches and no Java."""
    for name in ("AAC_METRICS_CACHE_PATH", "FENSE_DATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", str(tmp_path / "java"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(java_parts.Jar, "packaged", lambda jar: None)
    monkeypatch.setattr(java_parts, "packaged_java", lambda: None)
    for loader in (metrics._load_sbert, metrics._load_checker, java_parts._fits):
        loader.cache_clear()
    return tmp_path


def test_what_is_missing_is_said_and_the_rest_computes(bare_machine: Path) -> None:
    scores = caption_values(CANDIDATES, REFERENCES)
    assert set(scores.absent) == {"meteor", "spice", "spider", "spider_fl", "sbert_sim", "fer", "fense"}
    assert set(NO_JAVA) - {"vocab"} == set(scores.per_clip)
    for metric, remedy in (("meteor", ".[metrics]"), ("spice", "aac-metrics-download")):
        assert remedy in scores.absent[metric]
        assert "Java 8 to 13" in scores.absent[metric]
    assert "echecker" in scores.absent["fense"]
    assert "TinyBERT" in scores.absent["fense"]
    assert scores.absent["spider_fl"] == f"{scores.absent['spider']}; {scores.absent['fer']}"
    java = [line for line in scores.absences if "Java 8 to 13" in line]
    assert [line.split(":")[0] for line in java] == ["spider_fl, spider, meteor, spice"], "said once"
    assert best_preprocessing() == "plain"
    assert not list(bare_machine.iterdir())  # nothing was fetched
    with pytest.raises(MissingPartError, match=r"meteor-1\.5\.jar"):
        candidate_values([["a"], ["b"]], REFERENCES, "meteor")
    with pytest.raises(MissingPartError, match="stanford-corenlp"):
        caption_values(CANDIDATES, REFERENCES, preprocessing="ptb")


FAKE_JAVA = """#!{python}
import json, sys
if sys.argv[1] == "-version":
    print('openjdk version "11.0.13" 2021-10-19', file=sys.stderr)
elif "edu.stanford.nlp.process.PTBTokenizer" in sys.argv:
    print(open(sys.argv[-1]).read().lower().replace(".", " ."), end="")
elif sys.argv[3].endswith("spice-1.0.jar"):
    if open(sys.argv[3]).read():
        sys.exit("out of memory")
    clips = json.load(open(sys.argv[4]))
    scores = [{{"image_id": c["image_id"], "scores": {{"All": {{"f": len(c["refs"]) / 10}}}}}} for c in clips]
    json.dump(scores, open(sys.argv[sys.argv.index("-out") + 1], "w"))
    print("ran", file=open(sys.argv[3] + ".runs", "a"))
else:  # METEOR's protocol: a line of statistics a clip, then all values and their total
    for line in sys.stdin:
        if line.startswith("EVAL"):
            values = [float(one) for one in line.split("|||")[1:]]
            print(*values, sum(values), sep="\\n", flush=True)
        else:
            print(len(line.split("|||")) - 2, flush=True)  # the number of references
"""


def install_java(machine: Path) -> Path:
    """A stand-in for Java and its jars; returns SPICE's."""
    from aac_metrics.functional.spice import check_spice_install

    (machine / "java").write_text(FAKE_JAVA.format(python=sys.executable))
    (machine / "java").chmod(0o755)
    for jar in ("meteor/meteor-1.5.jar", "stanford_nlp/stanford-corenlp-3.4.1.jar", "spice/spice-1.0.jar"):
        (machine / "aac-metrics" / jar).parent.mkdir(parents=True)
        (machine / "aac-metrics" / jar).touch()
    for folder in ("cache", "lib"):
        (machine / "aac-metrics" / "spice" / folder).mkdir()
    with pytest.raises(FileNotFoundError) as missing:
        check_spice_install(str(machine))
    for jar in re.findall(r"[\w.-]+\.jar", str(missing.value)):
        (machine / "aac-metrics" / "spice" / "lib" / jar).touch()
    return machine / "aac-metrics" / "spice" / "spice-1.0.jar"


def test_java_parts_are_called_once_they_are_there(bare_machine: Path) -> None:
    """What is looked for, sent and read back, clip by clip."""
    install_java(bare_machine)
    assert best_preprocessing() == "ptb"
    candidates = ["A man is speaking.", "Rain  falls"]
    scores = caption_values(candidates, REFERENCES, ["meteor", "cider_d"], preprocessing="ptb")
    assert not scores.absent
    assert scores.preprocessing == "ptb"
    assert scores.per_clip["meteor"].tolist() == [3, 1]
    assert scores.corpus["meteor"] == 4
    assert scores.corpus["cider_d"] == pytest.approx(0.9614, abs=5e-5)
    assert [one.tolist() for one in candidate_values([["a", "b"], ["c"]], REFERENCES, "meteor")] == [[3, 3], [1]]


@pytest.mark.parametrize(("version", "fits"), [("1.8.0_392", True), ("11.0.13", True), ("17.0.15", False)])
def test_java_is_asked_for_its_version(bare_machine: Path, version: str, fits: bool) -> None:
    java = bare_machine / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2021-10-19' >&2\n")
    java.chmod(0o755)
    assert ("Java" not in missing_parts("meteor")) == fits
    assert "meteor-1.5.jar" in missing_parts("meteor")


def snapshot(cache: Path, name: str) -> Path:
    """An empty snapshot of a model in a Hugging Face cache."""
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0" * 40)
    return model / "snapshots" / ("0" * 40)


def small_bert(directory: Path) -> Any:
    """A BERT with random weights and six words, saved with its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    directory.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "rain", "speaks", "falls", "is"]
    (directory / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(directory / "vocab.txt"), model_max_length=64).save_pretrained(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(directory)
    return config


def install_models(machine: Path) -> None:
    """Random models of the right form; the checker flags everything."""
    from aac_metrics.functional.fer import BERTFlatClassifier
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    small_bert(machine / "bert")
    embedder = Transformer(str(machine / "bert"))
    SentenceTransformer(modules=[embedder, Pooling(16)]).save(str(snapshot(machine, metrics.SBERT)))
    small_bert(snapshot(machine, metrics.CHECKER_BASE))
    checker = BERTFlatClassifier(str(machine / "bert"), 6)
    with torch.no_grad():
        checker.clf.weight.zero_()
        checker.clf.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 5.0]))
    weights = checker.state_dict() | {"encoder.embeddings.position_ids": torch.arange(512)[None]}
    saved = {"model_type": "bert-base-uncased", "num_classes": 6, "state_dict": weights}
    torch.save(saved, machine / metrics.CHECKER)


def test_fense_computes_from_cached_models(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path: no hub is asked, and the penalty is FENSE's."""
    install_models(bare_machine)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("went to the network"))

    scores = caption_values(CANDIDATES, REFERENCES, ["sbert_sim", "fer", "fense"])
    assert not scores.absent
    assert scores.per_clip["fer"].tolist() == [1, 1]
    np.testing.assert_allclose(scores.per_clip["fense"], 0.1 * scores.per_clip["sbert_sim"], rtol=1e-6)
    assert scores.per_clip["sbert_sim"].between(-1, 1).all()
    ragged = candidate_values([CANDIDATES, CANDIDATES], REFERENCES, "fense")
    assert ragged[0][0] == pytest.approx(scores.per_clip["fense"][0], rel=1e-5)


def test_spider_fl_joins_java_and_models(bare_machine: Path) -> None:
    spice = install_java(bare_machine)
    install_models(bare_machine)
    scores = caption_values(CANDIDATES, REFERENCES, ["cider_d", "spice", "spider", "spider_fl", "fer"])
    assert not scores.absent
    values = scores.per_clip
    assert values["spice"].tolist() == [0.3, 0.1]
    np.testing.assert_allclose(values["spider"], (values["cider_d"] + values["spice"]) / 2)
    np.testing.assert_allclose(values["spider_fl"], 0.1 * values["spider"])
    assert scores.corpus["spider_fl"] == pytest.approx(values["spider_fl"].mean())
    assert len(spice.with_name("spice-1.0.jar.runs").read_text().split()) == 1, "SPICE is slow: once"


def test_java_that_fails_costs_its_own_metrics_alone(bare_machine: Path) -> None:
    install_java(bare_machine).write_text("broken")
    scores = caption_values(CANDIDATES, REFERENCES, ["cider_d", "spice", "spider", "meteor"])
    assert set(scores.per_clip) == set(scores.corpus) == {"cider_d", "meteor"}
    assert all("it failed" in reason for reason in scores.absent.values())
    assert set(scores.absent) == {"spice", "spider"}


def test_meteor() -> None:
    scores = caption_values(["a man speaks", "it hails"], REFERENCES, ["meteor"])
    assert scores.per_clip["meteor"][0] == pytest.approx(1, abs=0.05)
    assert scores.per_clip["meteor"][1] < 0.2


def test_ptb_tokens(example: Example) -> None:
    scores = caption_values(["A man is speaking.", "Rain falls"], REFERENCES, ["cider_d"], preprocessing="ptb")
    assert scores.preprocessing == "ptb"
    np.testing.assert_allclose(scores.corpus["cider_d"], 0.9614, atol=5e-5)
    candidates, references = example(rows=60)
    first = [clip[0] for clip in candidates]
    with java_parts.PTB_TOKENIZER.cache() as cache:
        java = {"cache_path": cache, "java_path": java_parts.java_path()}
        corpus, clips = by_the_library(first, references, ["cider_d", "rouge_l", "bleu_4"], preprocess=True, **java)
    scores = caption_values(first, references, ["cider_d", "rouge_l", "bleu_4"], preprocessing="ptb")
    for metric, value in scores.corpus.items():
        assert value == pytest.approx(float(corpus[metric]), abs=1e-6)
        np.testing.assert_allclose(scores.per_clip[metric], clips[metric], atol=1e-6)

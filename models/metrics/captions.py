"""Caption metrics, every value by the aac-metrics library (github.com/Labbeti/aac-metrics); no formula is kept here.

What needs Java (METEOR, SPICE, SPIDEr), model files (SBERT-sim, FER, FENSE) or both (SPIDEr-FL) is looked for on this
machine, without network. Where a part is missing the metric is left out, and `CaptionScores.absent` says which part and
how to get it; the others still compute. Places are the library's own: AAC_METRICS_CACHE_PATH, AAC_METRICS_JAVA_PATH,
FENSE_DATA, and the Hugging Face cache; and the packages of the extra `metrics` (`java_parts`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..errors import InputError, TooFewClipsError
from ..files import CheckpointError
from ..hub import cached_model
from .cider_d import cider_d_of_candidates
from .java_parts import METEOR, PTB_TOKENIZER, java_path, missing_java
from .library import library

_LOADING = threading.Lock()  # systems are scored side by side, and loading patches transformers for a moment
Preprocessing = Literal["plain", "ptb"]
Values = tuple[dict[str, Any], dict[str, Any]]  # of the corpus and of each clip
DEFAULT_METRICS = (
    "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "meteor", "spice", "spider", "spider_fl",
    "sbert_sim", "fer", "fense", "vocab",
)  # fmt: skip
COMPOSITES = ("spider_fl", "spider", "fense")  # each brings its parts along
NEEDS_TWO_CLIPS = frozenset({"cider_d", "spider", "spider_fl"})
NOT_OF_CANDIDATES = frozenset({"vocab", "spider", "spider_fl"})
DOWNLOAD = "`aac-metrics-download` gets it"
SBERT = "sentence-transformers/paraphrase-TinyBERT-L6-v2"
CHECKER = "echecker_clotho_audiocaps_base.ckpt"
CHECKER_BASE = "bert-base-uncased"
CHECKER_REMEDY = f"`hf download {CHECKER_BASE}` gets it"
WORD = re.compile(r"\w+(?:['’-]\w+)*")


class CaptionInputError(InputError, ValueError):
    """Candidates and references cannot be scored; `index` is the clip's, None where no single clip is at fault."""

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class MissingPartError(CaptionInputError):
    """A metric or tokenizer was asked for whose Java or model files are not on this machine."""


@dataclass(frozen=True)
class CaptionScores:
    """Values of C clips, in the units of the metrics' papers (CIDEr-D 0..10, all others 0..1; fer: 1 is an error)."""

    per_clip: pd.DataFrame  # [C] rows, one column a metric
    corpus: dict[str, float]  # as aac-metrics defines each; `vocab.*` among them
    absent: dict[str, str]  # metric to what is missing, and how to get it
    preprocessing: Preprocessing  # which tokens the values are of; values of different ones do not compare

    @property
    def details(self) -> dict[str, Any]:
        """Return how the values were computed: library and version, preprocessing, and which metrics are absent."""
        library = f"aac-metrics {version('aac-metrics')}"
        return {"library": library, "preprocessing": self.preprocessing, "absent": self.absent}

    @property
    def absences(self) -> list[str]:
        """Return a line for each missing part, with the metrics that need it."""
        needing: dict[str, list[str]] = {}
        for metric, reason in self.absent.items():
            for part in reason.split("; "):
                needing.setdefault(part, []).append(metric)
        return [f"{', '.join(metrics)}: {part}" for part, metrics in needing.items()]


def plain_tokens(text: str) -> list[str]:
    """Return lower-case words without punctuation; hyphens and apostrophes inside words stay (`high-pitched`, `dog's`).

    It stands in for the PTB tokenizer of published values, which needs Java. They differ in `dog's`, which PTB splits.
    """
    return WORD.findall(text.lower())


def caption_values(
    candidates: list[str],
    references: list[list[str]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    preprocessing: Preprocessing = "plain",
) -> CaptionScores:
    """Score one caption of each clip.

    Args:
        candidates: C captions. One without a word is scored too (a captioner may produce it).
        references: one or more captions of each clip.
        metrics: names among `DEFAULT_METRICS`.
        preprocessing: of both sides and for every metric, as aac-metrics does it: `plain` (`plain_tokens`), or `ptb`
            (the Java tokenizer, for values that compare with published ones).

    Raises:
        CaptionInputError: no clips, unequal lengths, a clip without references, a blank reference, an unknown metric.
        TooFewClipsError: CIDEr-D, SPIDEr or SPIDEr-FL of one clip.
        MissingPartError: `ptb` without its Java parts.
    """
    _check(len(candidates), references, metrics)
    texts, cleaned = _preprocess(candidates, references, preprocessing)
    corpus: dict[str, float] = {}
    columns: dict[str, np.ndarray] = {}
    absent: dict[str, str] = {}
    # composites first, so that SPICE runs once
    for metric in sorted(metrics, key=(*COMPOSITES, *metrics).index):
        if metric in columns:
            continue
        if reason := missing_parts(metric):
            absent[metric] = reason
            continue
        try:
            of_corpus, of_clips = _call(metric, texts, cleaned)
        except (OSError, SubprocessError) as error:  # Java that is there, and has too little memory, for instance
            absent[metric] = f"it failed: {error}"
            continue
        corpus |= {name: float(value) for name, value in of_corpus.items()}
        columns |= {name: np.asarray(value.cpu(), float) for name, value in of_clips.items()}
    per_clip = pd.DataFrame({name: columns[name] for name in metrics if name in columns})
    kept = {name: value for name, value in corpus.items() if name in metrics or name.startswith("vocab.")}
    if "vocab" in metrics and "vocab.f1" not in kept:
        absent["vocab.f1"] = "no word of the candidates is in the references"
    return CaptionScores(per_clip, kept, absent, preprocessing)


def candidate_values(
    candidates: list[list[str]], references: list[list[str]], metric: str = "cider_d"
) -> list[np.ndarray]:
    """Return the value of every candidate of every clip against its references; `plain_tokens` on both sides.

    CIDEr-D weighs n-grams by how many clips' references hold them. Each clip is counted once, however many candidates
    it has, so the mean over clips of the chosen candidates' values is the corpus value that `caption_values` gives.

    Args:
        candidates: K_i captions of each of C clips; K_i may differ, and be 0.
        references: one or more of each clip.
        metric: any of `DEFAULT_METRICS` but vocab, spider and spider_fl.

    Returns:
        C arrays [K_i], float64.

    Raises:
        CaptionInputError, TooFewClipsError: as `caption_values`.
        MissingPartError: the metric's parts are not on this machine.
        UnsupportedLibraryError: cider_d with a release of aac-metrics that is composed differently.
    """
    _check(len(candidates), references, [metric])
    if metric in NOT_OF_CANDIDATES:
        raise CaptionInputError(f"{metric}: a candidate is scored by one metric of its own, such as cider_d or spice")
    if reason := missing_parts(metric):
        raise MissingPartError(f"{metric}: {reason}")
    flat = [" ".join(plain_tokens(text)) for clip in candidates for text in clip]
    clip_of = [clip for clip, own in enumerate(candidates) for _ in own]
    cleaned = [[" ".join(plain_tokens(text)) for text in clip] for clip in references]
    _refuse_blank(cleaned)
    if not flat:
        values = np.empty(0)
    elif metric == "cider_d":
        values = cider_d_of_candidates(flat, clip_of, cleaned)
    else:
        # the others know no corpus: a pair of candidate and references is worth the same among any others
        values = np.asarray(_call(metric, flat, [cleaned[clip] for clip in clip_of])[1][metric].cpu(), float)
    return np.split(values, np.cumsum([len(clip) for clip in candidates])[:-1])


# --- what is on this machine ---------------------------------------------------------------------------------------


def missing_parts(metric: str) -> str:
    """Return why a metric cannot be computed on this machine and what would help; empty where it can. No network."""
    if metric == "meteor":
        return "; ".join(filter(None, [METEOR.missing(), missing_java()]))
    if metric in ("spice", "spider"):
        return "; ".join(filter(None, [_missing_spice(), missing_java()]))
    if metric == "spider_fl":
        return "; ".join(filter(None, map(missing_parts, ("spider", "fer"))))
    parts = [_missing_sbert()] if metric in ("sbert_sim", "fense") else []
    if metric in ("fer", "fense"):
        parts += [_missing_checker(), _missing_model(CHECKER_BASE, CHECKER_REMEDY)]
    return "; ".join(filter(None, parts))


@dataclass(frozen=True)
class Part:
    """Something that metrics need beyond the package's own requirements."""

    name: str
    where: str  # the place where it is, or would be
    missing: str  # why it cannot be used and what gets it; empty where it can
    metrics: str  # that need it


def metric_parts() -> list[Part]:
    """Return all that some metric needs, and whether it is on this machine. No network."""
    spice = str(Path(library("utils.globals").get_default_cache_path(), "aac-metrics", "spice"))
    fluency = "fer, fense, spider_fl"
    return [
        Part("Java", java_path(), missing_java(), "meteor, spice, spider, spider_fl; tokens as published (PTB)"),
        Part("METEOR's jar", METEOR.where(), METEOR.missing(), "meteor"),
        Part("PTB tokenizer's jar", PTB_TOKENIZER.where(), PTB_TOKENIZER.missing(), "tokens as published"),
        Part("SPICE's jars", spice, _missing_spice(), "spice, spider, spider_fl"),
        Part("SBERT", cached_model(SBERT) or "", _missing_sbert(), "sbert_sim, fense"),
        Part("FENSE's error checker", str(checker_path()), _missing_checker(), fluency),
        Part(CHECKER_BASE, cached_model(CHECKER_BASE) or "", _missing_model(CHECKER_BASE, CHECKER_REMEDY), fluency),
    ]


def best_preprocessing() -> Preprocessing:
    """Return `ptb`, that of published values, where this machine has its parts, else `plain`."""
    return "plain" if _missing_tokenizer() else "ptb"


def _missing_tokenizer() -> str:
    return "; ".join(filter(None, [PTB_TOKENIZER.missing(), missing_java()]))


def _missing_spice() -> str:
    try:
        library("functional.spice").check_spice_install(library("utils.globals").get_default_cache_path())
    except OSError as error:
        return f"{str(error).partition(' for SPICE')[0]} ({DOWNLOAD})"  # and how else to get it
    return ""


def _missing_sbert() -> str:
    return _missing_model(SBERT, DOWNLOAD)


def _missing_model(name: str, remedy: str) -> str:
    return "" if cached_model(name) else f"{name} is not in the Hugging Face cache ({remedy})"


def _missing_checker() -> str:
    from ..fluency.fense_checkpoint import read_fense_checkpoint

    if not checker_path().is_file():
        return f"no {checker_path()} ({DOWNLOAD})"
    try:
        read_fense_checkpoint(checker_path(), mapped=True)
    except CheckpointError as error:
        return f"{error} (`rm {checker_path()} && aac-metrics-download` gets it)"
    return ""


def checker_path() -> Path:
    """Return where the metrics look for FENSE's error checker, which is where `aac-metrics-download` puts it."""
    import os

    import torch

    return Path(os.getenv("FENSE_DATA", Path(torch.hub.get_dir()) / "fense_data")).expanduser() / CHECKER


# --- calling the library -------------------------------------------------------------------------------------------


def _call(metric: str, candidates: list[str], references: list[list[str]]) -> Values:
    """Return (corpus values, values of each clip) as the library does."""
    module = library(f"functional.{metric.partition('_')[0] if 'bleu' in metric else metric}")
    function: Callable[..., Values] = getattr(module, metric)
    if metric == "vocab":
        return _vocab(function, candidates, references)
    if metric in ("sbert_sim", "fense"):
        function = partial(function, sbert_model=_sbert())
    if metric in ("fer", "fense", "spider_fl"):
        function = partial(function, echecker=_checker())
    if metric in ("meteor", "spice", "spider", "spider_fl"):
        function = partial(function, java_path=java_path())
    if metric == "meteor":
        with METEOR.cache() as cache:
            return function(candidates, references, cache_path=cache)
    return function(candidates) if metric == "fer" else function(candidates, references)


def _vocab(function: Callable[..., Values], candidates: list[str], references: list[list[str]]) -> Values:
    try:
        return function(candidates, references)[0], {}
    except ZeroDivisionError:
        # aac-metrics 0.6.0 divides by the number of candidate words, and by that of the shared words
        return function(candidates, None)[0], {}


def _sbert() -> Any:
    with _LOADING:
        return _load_sbert()


def _checker() -> Any:
    with _LOADING:
        return _load_checker()


@lru_cache(maxsize=1)
def _load_sbert() -> Any:
    """Load SBERT from the cache's directory: given a name, the library would ask the hub."""
    from sentence_transformers import SentenceTransformer

    from ..checkpoint import plain_data

    with plain_data(SBERT):
        return SentenceTransformer(cached_model(SBERT), local_files_only=True)


@lru_cache(maxsize=1)
def _load_checker() -> Any:
    """Load FENSE's fluency checker from its file; the library's loader asks the hub and needs the GPU it was saved on.

    The classifier takes the tokenizer from `model_type`, a directory here.
    """
    import torch

    from ..checkpoint import plain_data
    from ..fluency.fense_checkpoint import OUTPUTS, read_fense_checkpoint

    with plain_data(CHECKER_BASE):
        checker = library("functional.fer").BERTFlatClassifier(cached_model(CHECKER_BASE), len(OUTPUTS))
    checker.load_state_dict(read_fense_checkpoint(checker_path()).weights)
    return checker.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _preprocess(
    candidates: list[str], references: list[list[str]], preprocessing: Preprocessing
) -> tuple[list[str], list[list[str]]]:
    if preprocessing == "plain":
        texts = [" ".join(plain_tokens(text)) for text in candidates]
        cleaned = [[" ".join(plain_tokens(text)) for text in clip] for clip in references]
    elif reason := _missing_tokenizer():
        raise MissingPartError(f"preprocessing `ptb`: {reason}")
    else:
        # one start of Java for both sides; the tokenizer takes a line a sentence
        lines = [[" ".join(text.split()) for text in clip] for clip in [candidates, *references]]
        with PTB_TOKENIZER.cache() as cache:
            texts, *cleaned = library("utils.tokenization").preprocess_mult_sents(
                lines, cache_path=cache, java_path=java_path()
            )
    _refuse_blank(cleaned)
    return texts, cleaned


# --- checks --------------------------------------------------------------------------------------------------------


def _check(clips: int, references: list[list[str]], metrics: Sequence[str]) -> None:
    if unknown := [metric for metric in metrics if metric not in DEFAULT_METRICS]:
        raise CaptionInputError(f"metric `{unknown[0]}`: expected {', '.join(DEFAULT_METRICS)}")
    if not clips:
        raise CaptionInputError("no clips to score")
    if clips != len(references):
        raise CaptionInputError(f"candidates of {clips} clips and references of {len(references)}")
    for index, own in enumerate(references):
        if not own:
            raise CaptionInputError(f"clip {index} has no reference", index)
    needing = [metric for metric in metrics if metric in NEEDS_TWO_CLIPS]
    if clips < 2 and needing:
        raise TooFewClipsError(
            f"{needing[0]} of {clips} clip: it weighs n-grams by how many clips' references hold them, so it needs two "
            "clips or more; leave it out of `metrics`"
        )


def _refuse_blank(references: list[list[str]]) -> None:
    for index, own in enumerate(references):
        if not all(text.strip() for text in own):
            raise CaptionInputError(f"clip {index} has a reference without a word", index)

"""What a reranking score is given and what it returns, and how its columns and weights are named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...settings import EncoderScoring

if TYPE_CHECKING:  # tables of scores are also read where no model is loaded
    from ...fluency.detector import FluencyDetector
    from ...generation.candidates import Candidate
    from ...retriever.model import Retriever


@dataclass(frozen=True)
class MemberNames:
    """The names of the members that scores have columns for."""

    retrievers: Sequence[str] = ()
    captioners: Sequence[str] = ()  # whose likelihood of every candidate is known
    caption_sources: Sequence[str] = ()  # all that propose: captioners and token ensembles


@dataclass(frozen=True)
class Scorers:
    """The models that score the candidates of C clips, with what they have computed of the clips."""

    retrievers: Mapping[str, Retriever] = field(default_factory=dict)
    audio_embeddings: Mapping[str, np.ndarray] = field(default_factory=dict)  # by retriever, [C, D]
    detector: FluencyDetector | None = None
    # By captioner, of each clip, the mean log-likelihood of a token by text (`models.generation.likelihood`).
    likelihoods: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    # By retriever, [R, D]: audio embeddings of the same other clips in search, combine and bundle.
    references: Mapping[str, np.ndarray] = field(default_factory=dict)
    encoder_score: EncoderScoring = "cosine"


@dataclass(frozen=True)
class ScoringContext:
    """The N candidates of C clips, clip after clip, with all that a score may look at.

    Many candidates share a text, so that a score of texts alone is `values_of_distinct_texts[context.text_of]`.
    """

    candidates: Sequence[Candidate]  # N
    captioners: Sequence[str]  # N; `a+b` where both proposed the text, `a/beam` where the beam search of `a` did
    clip_of: np.ndarray  # [N] int, the candidate's clip
    texts: list[str]  # T, distinct
    text_of: np.ndarray  # [N] int, the candidate's place in `texts`
    members: MemberNames
    scorers: Scorers

    @cached_property
    def text_embeddings(self) -> dict[str, np.ndarray]:
        """Return the embeddings [T, D] of `texts` by retriever, computed once for all scores."""
        return {name: one.text_embeddings(self.texts) for name, one in self.scorers.retrievers.items()}

    @cached_property
    def fluency_error(self) -> np.ndarray:
        """Return the probability [N] that a candidate is damaged, 0 without a detector, computed once a text."""
        detector = self.scorers.detector
        return detector.fluency_error(self.texts)[self.text_of] if detector else np.zeros(len(self.text_of))

    @cached_property
    def likelihoods(self) -> np.ndarray:
        """Return the mean log-likelihood of a token under each captioner of `members`, [captioners, N]."""
        places = list(zip(self.clip_of.tolist(), self.candidates, strict=True))
        known = (self.scorers.likelihoods[name] for name in self.members.captioners)
        return np.array([[of_clip[clip][one.text] for clip, one in places] for of_clip in known])


class Score(ABC):
    """A score of candidates; higher is better. Its weight is searched together with those of the others."""

    name: ClassVar[str]
    either_sign: ClassVar[bool] = False  # whether more may also be worse, so that its weight may be negative
    # Whether a candidate's value depends on the other candidates of its clip, or on who else proposes it: where such a
    # score is weighed, all caption sources propose, also those whose candidates are not chosen from.
    of_pool: ClassVar[bool] = False
    needs_references: ClassVar[bool] = False  # `Scorers.references`, which a bundle then holds

    @abstractmethod
    def values(self, context: ScoringContext) -> np.ndarray:
        """Return the finite values of all candidates, [N], or [columns, N] where `columns` names several."""

    def columns(self, members: MemberNames) -> list[str]:
        """Return the names of the score's columns in files: by default one, `<name>_score`.

        A score that differs by member has a column `<name>_score/<member>` for each; a score that has nothing to tell
        of these members has none.
        """
        return [f"{self.name}_score"]

    def captioners_asked(self, columns: Collection[str], members: MemberNames) -> Collection[str]:
        """Return the captioners whose likelihoods of all candidates some of the score's columns need."""
        return ()

    def owns(self, column: str) -> bool:
        """Return whether a column in a file is one of this score."""
        return column.partition("/")[0] == f"{self.name}_score"


def weight_name(column: str) -> str:
    """Return the name of a column's weight, as in best.json and bundle.json.

    It is the retriever's for its encoder score, else the column's without `_score`: `decoder_score` has the weight
    `decoder`, and `overlap_score/bge` would have `overlap/bge`.
    """
    kind, slash, member = column.partition("/")
    name = kind.removesuffix("_score")
    return member if name == "encoder" else name + slash + member

"""Load a run's trained members over a split of the target corpus, and compute with them what searches need."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from models.captioner.model import Captioner, conditioning
from models.ensemble.candidate_table import CandidateTable, score_candidates
from models.ensemble.captioner_fusion import CAPTIONS, LIKELIHOOD
from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_columns import CaptionerColumns, caption_embeddings, captions_of
from models.ensemble.scores.base import MemberNames, Scorers
from models.ensemble.scores.rank import choose_references
from models.ensemble.scores.registry import captioners_asked, compares_candidates, needed_columns
from models.fluency.detector import FluencyDetector
from models.generation.candidates import Candidate, Decoding
from models.generation.proposals import ClipInputs, Proposals, propose
from models.metrics.retrieval import flatten_captions
from models.retriever.model import Retriever
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import CaptionerMember
from ray_jobs.features.dataset import read_features
from ray_jobs.features.embeddings import Embeddings, read_embeddings, weights_checksum, write_embeddings
from ray_jobs.results.member import checked_weights
from ray_jobs.run.directory import RunDirectory
from ray_jobs.run.session import reserved_device

REFERENCE_SPLIT = "validation"  # of the clips with which rank scores compare


@dataclass
class ComputedColumns:
    """What captioners add to the retrievers' similarities, and the seconds that took."""

    similarities: dict[str, np.ndarray] = field(default_factory=dict)  # [queries, clips] by column
    seconds_a_query: dict[str, float] = field(default_factory=dict)  # by column
    seconds_a_clip: dict[str, float] = field(default_factory=dict)  # by what is made once a clip


class TrainedMembers:
    """The members of a run over one split of its target corpus; each is loaded when it is first used.

    Args:
        directory: the run directory; a job that must not see some splits gives one that refuses them (`RunDirectory`).
    """

    def __init__(self, experiment: Experiment, split: str, directory: RunDirectory | None = None) -> None:
        self.experiment, self.split = experiment, split
        self.directory = directory or RunDirectory(experiment)
        self.features = read_features([self._features(split)])
        self.device = reserved_device()

    @cached_property
    def retrievers(self) -> dict[str, Retriever]:
        return {name: Retriever.load(self._path(name)).to(self.device) for name in self.experiment.of_kind("retriever")}

    @cached_property
    def captioners(self) -> dict[str, Captioner]:
        return {name: Captioner.load(self._path(name)).to(self.device) for name in self.experiment.of_kind("captioner")}

    @cached_property
    def detector(self) -> FluencyDetector | None:
        names = self.experiment.of_kind("fluency-detector")
        return FluencyDetector.load(self._path(names[0])).to(self.device) if names else None

    @cached_property
    def audio_embeddings(self) -> dict[str, np.ndarray]:
        """Return the embeddings [clips, D] by retriever."""
        return {name: self._embeddings(name, self.split, self.features.clip_ids)[:] for name in self.retrievers}

    @cached_property
    def references(self) -> dict[str, np.ndarray]:
        """Return the embeddings [R, D] by retriever of the clips that `RankScore` compares a candidate's own with.

        They are validation clips, whatever the split: a search may read no other, and a choice of captions that is
        weighed on them must find the same ones on test clips and in a bundle.
        """
        same = self.split == REFERENCE_SPLIT
        clip_ids = self.features.clip_ids if same else read_features([self._features(REFERENCE_SPLIT)]).clip_ids
        rows = choose_references(len(clip_ids))
        names = self.experiment.of_kind("retriever")
        return {name: self._embeddings(name, REFERENCE_SPLIT, clip_ids)[rows] for name in names}

    def _embeddings(self, retriever: str, split: str, clip_ids: list[str]) -> Embeddings:
        """Open the embeddings of a split by a retriever, after making those that training has not made."""
        directory, weights = self._features(split), weights_checksum(self.directory.member(retriever))
        write_embeddings(directory, retriever, weights, lambda: self.retrievers[retriever])
        return read_embeddings([directory], retriever, weights, clip_ids)

    def _features(self, split: str) -> Path:
        return self.directory.features(self.experiment.target_corpus, split)

    def proposals(
        self,
        sampling: SamplingConfig,
        clips: slice,
        sources: Collection[str] | None = None,
        scored_by: Collection[str] = (),
    ) -> Proposals:
        """Return what some caption sources (all when left out) propose for some clips."""
        e = self.experiment
        inputs = ClipInputs(
            self.features.codes[clips], {name: self._conditioning(name)[clips] for name in self.captioners}
        )
        return propose(
            self.captioners, inputs, Decoding(sampling, e.beam, e.seed), e.token_ensembles, sources, scored_by
        )

    def candidates(
        self, sampling: SamplingConfig, clips: slice = slice(None), needed_by: Reranking | None = None
    ) -> CandidateTable:
        """Return all captioners' scored candidates of some clips (all when left out), sampled and by beam search.

        Args:
            needed_by: the choice for whose sake no other captions are proposed, and no other scores computed.
        """
        e, columns, sources, judges = self.experiment, None, None, list(self.captioners)
        if needed_by:
            names = MemberNames(list(self.retrievers), judges, e.caption_sources())
            columns = needed_columns(names, needed_by.weights)
            sources = None if compares_candidates(columns) else needed_by.captioners
            judges = captioners_asked(columns, names)
        proposals = self.proposals(sampling, clips, sources, judges)
        scorers = Scorers(
            retrievers=self.retrievers,
            audio_embeddings={name: one[clips] for name, one in self.audio_embeddings.items()},
            detector=self.detector,
            likelihoods=proposals.likelihoods,
            references=self.references,
            encoder_score=e.search.encoder_score,
        )
        return score_candidates(proposals.candidates, scorers, columns)

    def queries(self) -> tuple[list[str], np.ndarray]:
        """Return all captions of the split, and the clip that each describes."""
        return flatten_captions(self.features.captions)

    def similarities(self) -> dict[str, np.ndarray]:
        """Return the similarities [queries, clips] by retriever."""
        return self._similarities

    @cached_property
    def _similarities(self) -> dict[str, np.ndarray]:
        queries, _ = self.queries()
        return {
            name: model.similarity(model.text_embeddings(queries), self.audio_embeddings[name])
            for name, model in self.retrievers.items()
        }

    def captioner_columns(self) -> ComputedColumns:
        """Return the columns of captioners that the experiment asks for, and what they cost."""
        search, made = self.experiment.search, ComputedColumns()
        clips = ClipInputs(self.features.codes, {name: self._conditioning(name) for name in self.captioners})
        captions: dict[str, np.ndarray] = {}
        if CAPTIONS in search.retrieval_columns:
            start = time.perf_counter()
            said = captions_of(self.captioners, clips, self.experiment.beam)
            captions = {name: caption_embeddings(retriever, said) for name, retriever in self.retrievers.items()}
            made.seconds_a_clip[CAPTIONS] = (time.perf_counter() - start) / len(said)
        queries, _ = self.queries()
        columns = CaptionerColumns(queries, self.retrievers, self.captioners, clips, captions)
        asked = {LIKELIHOOD: [*self.captioners], CAPTIONS: [*self.retrievers]}
        for name in [
            f"{one}/{kind}" for kind, some in asked.items() if kind in search.retrieval_columns for one in some
        ]:
            start = time.perf_counter()
            made.similarities[name] = columns.column(name, self.similarities(), search.retrieval_depth)
            made.seconds_a_query[name] = (time.perf_counter() - start) / len(queries)
        return made

    def seconds_a_clip(self, sampling: SamplingConfig, clips: int = 16) -> dict[str, float]:
        """Measure the seconds a clip of each member and token ensemble, on the first `clips` clips of the split.

        A captioner proposes; a retriever embeds the clip and all captions proposed for it; a fluency detector judges
        these captions. They run one after another, on this machine.
        """
        e, few = self.experiment, slice(clips)
        codes = self.features.codes[few]
        audio = {name: self.features.hearing(one.waveform_rate).audio[few] for name, one in self.retrievers.items()}
        inputs = ClipInputs(codes, {name: self._conditioning(name)[few] for name in self.captioners})
        decoding = Decoding(sampling, e.beam, e.seed)
        proposed: dict[str, list[list[Candidate]]] = {}

        took: dict[str, float] = {}

        @contextmanager
        def timed(name: str) -> Iterator[None]:
            start = time.perf_counter()
            yield
            took[name] = (time.perf_counter() - start) / len(codes)

        for name in e.caption_sources():
            with timed(name):
                proposed |= propose(self.captioners, inputs, decoding, e.token_ensembles, [name]).candidates
        texts = list({one.text for said in proposed.values() for clip in said for one in clip})
        for name, retriever in self.retrievers.items():
            with timed(name):
                retriever.audio_embeddings(audio[name])
                retriever.text_embeddings(texts)
        for name in e.of_kind("fluency-detector"):
            assert self.detector
            with timed(name):
                self.detector.fluency_error(texts)
        return took

    def _conditioning(self, captioner: str) -> np.ndarray:
        member = self.experiment.members[captioner]
        assert isinstance(member, CaptionerMember)
        return conditioning(self.audio_embeddings, member.audio_embedding, len(self.features.clip_ids))

    def _path(self, name: str) -> Path:
        return checked_weights(self.directory.member(name))

"""Say how the members of a bundle are combined: as the searches chose, or where they did not, by plain defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.ensemble.captioner_fusion import FusionWithCaptioners
from models.ensemble.reranking import Reranking
from models.ensemble.retrieval_fusion import RetrievalFusion
from models.settings import SamplingConfig
from ray_jobs.experiment.config import Experiment
from ray_jobs.results.best import BestReranking, BestRetrieval, BestSampling
from ray_jobs.results.some_members import SomeMembersMetrics
from ray_jobs.run.directory import RunDirectory, is_done
from ray_jobs.training.refit import Refit


@dataclass(frozen=True)
class Choices:
    """How the members of a bundle are combined."""

    sampling: SamplingConfig
    reranking: Reranking
    retrieval: RetrievalFusion
    with_captioners: FusionWithCaptioners | None = None

    @classmethod
    def searched(cls, directory: RunDirectory) -> Choices:
        """Return what the searches of a run chose; for the members of a refit, what they chose for the originals."""
        retrieval = BestRetrieval.read(directory.search("retrieval"))
        found = cls(
            sampling=BestSampling.read(directory.search("sampling")).sampling,
            reranking=BestReranking.read(directory.search("reranking")).reranking,
            retrieval=retrieval.fusion,
            with_captioners=retrieval.helped(directory.experiment.search.retrieval_depth),
        )
        return found._of_refit(directory.experiment) if isinstance(directory.experiment, Refit) else found

    def _of_refit(self, refit: Refit) -> Choices:
        """Return the same choices with the names of a refit's members."""

        def renamed(weights: dict[str, float]) -> dict[str, float]:
            return {refit.renamed(name): weight for name, weight in weights.items()}

        scores = {refit.renamed_score(name): weight for name, weight in self.reranking.weights.items()}
        reranking, fusion, helped = self.reranking, self.retrieval, self.with_captioners
        captioners = reranking.captioners and [refit.renamed(name) for name in reranking.captioners]
        return replace(
            self,
            reranking=reranking.model_copy(update={"weights": scores, "captioners": captioners}),
            retrieval=fusion.model_copy(update={"weights": renamed(fusion.weights)}),
            with_captioners=helped and helped.model_copy(update={"weights": renamed(helped.weights)}),
        )

    @classmethod
    def of_some(cls, experiment: Experiment, directory: RunDirectory) -> Choices:
        """Return what `combine --members` chose for all members of `experiment`, or else `unsearched`."""
        path, unsearched = directory.ensemble_of(list(experiment.members)), cls.unsearched(experiment)
        if not is_done(path, directory.results_inputs()):
            return unsearched
        found = SomeMembersMetrics.read(path)
        if found.members != list(experiment.members):  # `a-b` and `c` have the directory of `a` and `b-c`
            return unsearched
        return cls(
            sampling=BestSampling.read(directory.search("sampling")).sampling,
            reranking=found.captioning.reranking if found.captioning else unsearched.reranking,
            retrieval=found.retrieval.fusion if found.retrieval else unsearched.retrieval,
        )

    @classmethod
    def unsearched(cls, experiment: Experiment) -> Choices:
        """Return the choices for some members alone: nothing is known of their weights.

        Captions are chosen by their own likelihood, and retrievers count alike, each query's similarities standardised.
        """
        return cls(
            sampling=experiment.sampling,
            reranking=Reranking(
                weights={"decoder": 1.0}, encoder_score=experiment.search.encoder_score, fallback="best"
            ),
            retrieval=RetrievalFusion(
                weights=dict.fromkeys(experiment.of_kind("retriever"), 1.0),
                normalisation="z" if len(experiment.of_kind("retriever")) > 1 else "none",
            ),
        )

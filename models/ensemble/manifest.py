"""Define bundle.json, which says of an exported ensemble what its members are and how they are combined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..files import CheckpointError
from ..generation.pooling import captioner_of
from ..records import parse_record
from ..settings import BeamConfig, LogMelConfig, SamplingConfig, TokenEnsembleConfig
from .captioner_fusion import CAPTIONS, LIKELIHOOD, FusionWithCaptioners
from .checksums import MANIFEST as MANIFEST
from .checksums import refuse_cut
from .reranking import Reranking
from .retrieval_fusion import RetrievalFusion
from .scores.base import MemberNames, weight_name
from .scores.registry import captioners_asked, compares_candidates, needed_columns, score_columns

FORMAT = 1
INDEX = "index"  # directory in the bundle, which the export does not make


class BundleManifest(BaseModel):
    """bundle.json: the members, how they are combined, and where all of it is from."""

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    retrievers: list[str]
    captioners: dict[str, str | list[str]] = Field(
        description="name to the retriever, or retrievers, whose audio_embedding it reads"
    )
    fluency_detector: str | None
    codebooks: int = Field(gt=0)
    log_mel: LogMelConfig
    max_duration_s: float = Field(gt=0, allow_inf_nan=False)
    sampling: SamplingConfig
    beam: BeamConfig
    token_ensembles: dict[str, TokenEnsembleConfig] = {}
    reranking: Reranking
    retrieval: RetrievalFusion
    retrieval_with_captioners: FusionWithCaptioners | None = Field(
        None, description="where captioners help to retrieve; `retrieval` is for going without them"
    )
    seed: int
    provenance: dict[str, Any]

    def names(self) -> MemberNames:
        """Return the members that scores of candidates are named after."""
        return MemberNames(self.retrievers, [*self.captioners], [*self.captioners, *self.token_ensembles])

    def needed_columns(self) -> list[str]:
        """Return the scores of candidates that the reranking needs."""
        return needed_columns(self.names(), self.reranking.weights)

    def caption_sources(self) -> list[str] | None:
        """Return those whose captions are chosen from, or compared with them; None for all that propose."""
        return None if compares_candidates(self.needed_columns()) else self.reranking.captioners

    def captioners_in_use(self, retrieving: bool) -> list[str]:
        """Return the captioners that propose, alone or in a token ensemble, that score, or that help to retrieve."""
        sources, fusion = self.caption_sources(), self.retrieval_with_captioners if retrieving else None
        if sources is None or (fusion and fusion.members(CAPTIONS)):
            return [*self.captioners]
        used = {captioner_of(name) for name in sources}
        used |= {member for name, one in self.token_ensembles.items() if name in used for member in one.members}
        used |= {
            *captioners_asked(self.needed_columns(), self.names()),
            *(fusion.members(LIKELIHOOD) if fusion else ()),
        }
        return [name for name in self.captioners if name in used]


def read_manifest(bundle: Path) -> BundleManifest:
    """Read bundle.json.

    Raises:
        CheckpointError: if it is missing, damaged, or of a format that this version does not read; naming a score that
            it weighs and this version does not have, a retriever that a captioner reads and the bundle does not have,
            or what `refuse_cut` finds.
    """
    path = bundle / MANIFEST
    if not path.is_file():
        inner = bundle / "bundle"
        hint = f"; did you mean {inner}?" if (inner / MANIFEST).is_file() else ""
        raise CheckpointError(f"{path}: no such file; expected a bundle made by `enclap export`{hint}")
    refuse_cut(bundle)
    remedy = "export the run again with this version, or load the bundle with the version that made it"
    manifest = parse_record(BundleManifest, path.read_bytes(), path, remedy, FORMAT)
    known = [weight_name(column) for column in score_columns(manifest.names())]
    if unknown := [name for name in manifest.reranking.weights if name not in known]:
        raise CheckpointError(
            f"{path}: reranking.weights: found {', '.join(unknown)}, expected scores of this version and bundle: "
            f"{', '.join(known)}; {remedy}"
        )
    for captioner, names in manifest.captioners.items():
        if unknown := sorted({*([names] if isinstance(names, str) else names)} - {*manifest.retrievers}):
            raise CheckpointError(
                f"{path}: captioners.{captioner}: found {', '.join(unknown)}, expected retrievers of the bundle: "
                f"{', '.join(manifest.retrievers)}; {remedy}"
            )
    return manifest

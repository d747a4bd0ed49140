"""Say how retrievers' similarities are joined with what captioners know, and what an index keeps of clips for that.

It loads no model: jobs that only read what was chosen use it, too.
"""

from __future__ import annotations

from pydantic import Field

from .retrieval_fusion import RetrievalFusion

LIKELIHOOD, CAPTIONS = "likelihood", "captions"
AUDIO = "audio"  # after a captioner's name in an index: the audio embeddings that it reads
CODES = "captioners/codes"  # in an index: the one array whose rows are arrays, [T, Q] of each clip


class FusionWithCaptioners(RetrievalFusion):
    """How retrievers' similarities and captioners' columns (`retrieval_columns`) are joined."""

    depth: int = Field(description="clips of a query, the best by the retrievers, whose likelihood is computed")

    def members(self, kind: str) -> list[str]:
        """Return the members that columns of a kind are named after."""
        named = (name.partition("/") for name in self.weights)
        return [member for member, _, column in named if column == kind]

    def kept(self) -> set[str]:
        """Return the names of what an index keeps: codes, what captioners read beside them, and captions."""
        likely = self.members(LIKELIHOOD)
        names = [f"{name}/{AUDIO}" for name in likely] + [f"{name}/{CAPTIONS}" for name in self.members(CAPTIONS)]
        return {*names, *([CODES] if likely else [])}

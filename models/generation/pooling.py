"""Join what several propose for a clip; `a` names samples of `a`, `a/beam` what its search found, `a+b` both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..normal_form import normal_form

if TYPE_CHECKING:  # tables are also read where no model is loaded
    from .candidates import Candidate

BEAM = "/beam"  # after the name of a caption source, for what its search found
SAMPLES = "/samples"  # likewise, where what it sampled is meant alone; candidates are named `a`


def pool(by_source: Mapping[str, Sequence[Candidate]]) -> list[tuple[str, Candidate]]:
    """Join the candidates that several propose for a clip; of those with the same words one is kept.

    Candidates that differ only in case, punctuation and spaces are one: that of the highest decoder_score, as it is
    written. Its source is named `a+b` where both propose it.
    """
    by_words: dict[str, tuple[str, Candidate]] = {}
    for name, candidates in by_source.items():
        for candidate in candidates:
            words = normal_form(candidate.text)
            known = by_words.get(words)
            better = known[1] if known and known[1].decoder_score >= candidate.decoder_score else candidate
            by_words[words] = (f"{known[0]}+{name}" if known else name, better)
    return list(by_words.values())


def proposals_of(source: str) -> set[str]:
    """Return how candidates of a source are named: `a` stands for `a` and `a/beam`, `a/samples` for `a` alone."""
    if source.endswith(SAMPLES):
        return {captioner_of(source)}
    return {source} if source.endswith(BEAM) else {source, source + BEAM}


def captioner_of(source: str) -> str:
    """Return the captioner or token ensemble of `a`, `a/beam` or `a/samples`."""
    return source.partition("/")[0]


def proposers(name: str) -> list[str]:
    """Return the names that are joined in a candidate's: `a` and `b/beam` of `a+b/beam`."""
    return name.split("+")

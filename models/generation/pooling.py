"""Join what several propose for a clip; `a` names samples of `a`, `a/beam` what its search found, `a+b` both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..normal_form import normal_form

if TYPE_CHECKING:  # tables are also read where no model is loaded
    from .candidates import Candidate

BEAM = "/beam"  # after the name of a caption source, for what its search found


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


def proposers(name: str) -> list[str]:
    """Return the names that are joined in a candidate's: `a` and `b/beam` of `a+b/beam`."""
    return name.split("+")

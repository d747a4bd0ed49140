"""All kinds of corpora. A new one is a file of its own with its settings and their `read`, and its name here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from corpora.audiocaps import AudioCapsCorpus
from corpora.clotho import ClothoCorpus
from corpora.folder import FolderCorpus
from corpora.macs import MacsCorpus
from corpora.mixtures import MixturesCorpus
from corpora.parquet import ParquetCorpus
from corpora.soundscapes.corpus import SoundscapesCorpus
from corpora.wavcaps import WavCapsCorpus

Corpus = Annotated[
    SoundscapesCorpus
    | FolderCorpus
    | ParquetCorpus
    | ClothoCorpus
    | AudioCapsCorpus
    | WavCapsCorpus
    | MacsCorpus
    | MixturesCorpus,
    Field(discriminator="kind"),
]

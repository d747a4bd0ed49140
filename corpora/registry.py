"""The kinds of corpora. To add one, write a file with a subclass of `CorpusSettings`, and list the class here."""

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

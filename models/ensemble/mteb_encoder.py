"""The retrievers of an ensemble for mteb, the benchmark of embeddings, which has to be installed.

Example: mteb.evaluate(MtebEncoder("BUNDLE"), mteb.get_tasks(tasks=["ClothoT2ARetrieval"]))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..fingerprint import fingerprint
from .checksums import read_sums
from .sentence_encoder import SentenceEncoder


class MtebEncoder:
    """Follow mteb's `EncoderProtocol`, of version 2.

    Similarities are the ensemble's own. Where the bundle normalises them within a query, that is over the documents
    that mteb compares at a time: all of a corpus, in chunks of 50,000, or those that a task reranks.
    """

    def __init__(self, bundle: str | Path, revision: str | None = None, *, device: str | None = None, **_: Any) -> None:
        """Load a bundle; errors as of `Ensemble.load`.

        Args:
            revision: names the bundle in mteb's results; a fingerprint of its files when left out.
        """
        self.encoder = SentenceEncoder.load(bundle, device)
        self.similarity, self.similarity_pairwise = self.encoder.similarity, self.encoder.similarity_pairwise
        self._revision = revision

    def encode(self, inputs: Iterable[Mapping[str, Any]], **settings: Any) -> np.ndarray:
        """Return the embeddings [N, D] of batches that have a column `audio` or `text`.

        Args:
            settings: what mteb says of the task, which changes nothing here.

        Raises:
            InputError: if a batch has neither column, or both: no retriever joins them.
        """
        encoders = {"text": self.encoder.encode_texts, "audio": self.encoder.encode_audio}
        found = []
        for batch in inputs:
            columns = [name for name in encoders if name in batch]
            if len(columns) != 1:
                raise InputError(f"found columns {', '.join(batch)}, expected one of `text` and `audio`")
            found.append(encoders[columns[0]](batch[columns[0]]))
        return np.concatenate(found)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """Return mteb's `ModelMeta`: the names under which it keeps results."""
        from mteb.models.model_meta import ModelMeta

        ensemble = self.encoder.ensemble
        return ModelMeta.create_empty(
            {
                "name": f"enclap/{ensemble.manifest.provenance.get('experiment', 'ensemble')}",
                "revision": self._revision or fingerprint(read_sums(ensemble.directory)),
                "embed_dim": self.encoder.get_embedding_dimension(),
                "modalities": [*SentenceEncoder.modalities],
                "framework": ["PyTorch"],
            }
        )

"""The EnCLAP captioner (arXiv 2401.17690, 2409.01160): BART over codec tokens and a retriever's audio embedding.

Encoder input of a clip of T frames, length T + 3:

    row        0                        1        2 .. T+1                       T+2
    vector     audio_embedding, proj.   BOS      sum over codebooks of codes    EOS
    position   zero                     0        1 .. T                         T+1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding

from models.checkpoint import load_weights, read_config, save_member
from models.masked_codec_modelling import masked_codec_loss, span_mask
from models.settings import RANDOM, CaptionerConfig
from models.tokenization import train_tokenizer

SPECIAL_ROWS = 3  # audio embedding, BOS, EOS
IGNORED = -100


class ShiftedPositions(BartLearnedPositionalEmbedding):
    """BART's learned positions moved one row down: row 0 gets a zero vector, row n the learned vector n - 1."""

    def forward(
        self, input_ids: Tensor, past_key_values_length: int = 0, position_ids: Tensor | None = None
    ) -> Tensor:
        learned = super().forward(input_ids[:, 1:], past_key_values_length, position_ids)
        return nn.functional.pad(learned, (0, 0, 1, 0))


class Captioner(nn.Module):
    """BART whose encoder reads codes [T, Q] and an audio_embedding [D]."""

    kind = "captioner"

    def __init__(
        self, config: CaptionerConfig, bart: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.config = config
        self.bart = bart
        self.tokenizer = tokenizer
        # generate() fills what a call leaves open from here, and BART's would force an EOS that nobody scored.
        special = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("bos", "pad", "eos")}
        bart.generation_config = GenerationConfig(
            decoder_start_token_id=bart.config.decoder_start_token_id, forced_eos_token_id=None, **special
        )
        width = bart.config.d_model
        encoder = bart.model.encoder
        shifted = ShiftedPositions(bart.config.max_position_embeddings, width)
        shifted.load_state_dict(encoder.embed_positions.state_dict())
        encoder.embed_positions = shifted
        # One table for all codebooks; its last row is both pad and mask, a zero vector that never trains.
        rows = config.codebooks * config.codebook_size
        self.code_embedding = nn.Embedding(rows + 1, width, padding_idx=rows)
        nn.init.normal_(self.code_embedding.weight[:-1], std=bart.config.init_std)
        self.audio_projection = nn.Linear(config.audio_embedding_dim, width)
        self.mcm_head = nn.Linear(width, rows)

    @classmethod
    def create(cls, config: CaptionerConfig, captions: Iterable[str]) -> Captioner:
        """Build for training; `captions` train the tokenizer of a language model from scratch."""
        if not config.language_model.startswith(RANDOM):
            bart = BartForConditionalGeneration.from_pretrained(config.language_model)
            return cls(config, bart, AutoTokenizer.from_pretrained(config.language_model))
        tokenizer = train_tokenizer(config.tokenizer, captions, config.vocab_size)
        sizes = {**config.sizes, "vocab_size": len(tokenizer)}
        return cls(config, BartForConditionalGeneration(BartConfig(**sizes)), tokenizer)

    @classmethod
    def load(cls, directory: str | Path) -> Captioner:
        """Load what `save` wrote; no network."""
        config = CaptionerConfig.model_validate(read_config(directory, cls.kind))
        layout = Path(directory) / "language_model"
        bart = BartForConditionalGeneration(BartConfig.from_pretrained(layout))
        model = cls(config, bart, AutoTokenizer.from_pretrained(layout))
        load_weights(model, directory)
        return model.eval()

    def save(self, directory: str | Path) -> None:
        """Write model.safetensors, config.json and language_model/ (layout and tokenizer)."""
        save_member(self, directory, self.kind, self.config)
        self.bart.config.save_pretrained(Path(directory) / "language_model")
        self.tokenizer.save_pretrained(Path(directory) / "language_model")

    @property
    def max_frames(self) -> int:
        """Codec frames that the position table leaves room for."""
        return self.bart.config.max_position_embeddings - SPECIAL_ROWS

    def pad_codes(self, codes: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Stack codes [T_i, >=Q] into [B, max T, Q] int64 on the model's device, and their lengths [B].

        The first `codebooks` codebooks are used, and of a clip that is longer than the position table, its beginning.
        """
        used = [clip[: self.max_frames, : self.config.codebooks] for clip in codes]
        lengths = torch.tensor([len(clip) for clip in used])
        batch = torch.zeros(len(used), int(lengths.max()), self.config.codebooks, dtype=torch.long)
        for row, clip in zip(batch, used, strict=True):
            row[: len(clip)] = torch.from_numpy(clip.astype(np.int64))
        device = self.mcm_head.weight.device
        return batch.to(device), lengths.to(device)

    def encode(
        self, codes: Tensor, lengths: Tensor, audio_embedding: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the encoder.

        Args:
            codes: [B, T, Q].
            lengths: [B] valid frames.
            audio_embedding: [B, D].
            hidden: [B, T, Q] cells to hide (masked codec modelling).

        Returns:
            states [B, T+3, width] and attention mask [B, T+3].
        """
        batch, frames, codebooks = codes.shape
        at = torch.arange(frames, device=codes.device)
        blank = (at >= lengths[:, None])[:, :, None].expand_as(codes)
        blank = blank if hidden is None else blank | hidden
        ids = codes + self.config.codebook_size * torch.arange(codebooks, device=codes.device)
        ids = ids.masked_fill(blank, self.code_embedding.num_embeddings - 1)
        frame_vectors = self.code_embedding(ids).sum(2)
        words = self.bart.model.encoder.embed_tokens.weight
        bos, eos = embedding(torch.tensor([self.tokenizer.bos_token_id, self.tokenizer.eos_token_id],
                                          device=codes.device), words)  # fmt: skip
        # EOS stands right behind each clip's own last frame, as it would without padding.
        rows = torch.cat([frame_vectors, frame_vectors.new_zeros(batch, 1, words.shape[1])], 1)
        end = (torch.arange(frames + 1, device=codes.device) == lengths[:, None])[:, :, None]
        rows = torch.where(end, eos, rows)
        head = torch.stack([self.audio_projection(audio_embedding), bos.expand(batch, -1)], 1)
        mask = (torch.arange(frames + SPECIAL_ROWS, device=codes.device) < lengths[:, None] + SPECIAL_ROWS).long()
        output = self.bart.model.encoder(inputs_embeds=torch.cat([head, rows], 1), attention_mask=mask)
        return output.last_hidden_state, mask

    def caption_logits(self, states: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Teacher-forced logits [N, S, vocabulary] for labels [N, S] (-100 where padded) of N rows of `states`."""
        decoder_input = labels.roll(1, 1).masked_fill(labels.roll(1, 1) == IGNORED, self.bart.config.pad_token_id)
        decoder_input[:, 0] = self.bart.config.decoder_start_token_id
        output = self.bart(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=decoder_input,
            use_cache=False,
        )
        return output.logits

    def labels(self, captions: list[str]) -> Tensor:
        """Token ids [N, S] of captions with BOS and EOS, -100 where padded."""
        tokens = self.tokenizer(
            captions, padding=True, truncation=True, max_length=self.config.max_caption_tokens, return_tensors="pt"
        )
        return tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, IGNORED).to(self.mcm_head.weight.device)

    def forward(
        self, codes: Tensor, lengths: Tensor, audio_embedding: Tensor, captions: list[list[str]]
    ) -> dict[str, Tensor]:
        """Losses of a batch: `loss` = caption cross-entropy + mcm_weight * masked codec loss, and both parts.

        Every clip brings the same number C of captions; the encoder runs once a clip, the decoder once a caption.
        """
        config = self.config
        hidden = None
        if config.mcm_weight > 0:
            hidden = span_mask(lengths, codes.shape[1], codes.shape[2], config.mcm_probability, config.mcm_span)
        states, mask = self.encode(codes, lengths, audio_embedding, hidden)
        each = len(captions[0])
        labels = self.labels([caption for clip in captions for caption in clip])
        logits = self.caption_logits(
            states.repeat_interleave(each, 0), mask.repeat_interleave(each, 0), labels
        )
        caption_loss = cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=config.label_smoothing
        )
        losses = {"loss": caption_loss, "caption_loss": caption_loss.detach()}
        if hidden is not None:
            frames = hidden.any(-1)  # the others have nothing to predict
            logits = self.mcm_head(states[:, 2:-1][frames]).unflatten(-1, (config.codebooks, config.codebook_size))
            mcm_loss = masked_codec_loss(logits, codes[frames], hidden[frames])
            losses |= {"loss": caption_loss + config.mcm_weight * mcm_loss, "mcm_loss": mcm_loss.detach()}
        return losses

    @torch.inference_mode()
    def log_likelihood(self, states: Tensor, mask: Tensor, captions: list[str]) -> Tensor:
        """Teacher-forced decoder_score [N]: mean log-likelihood a token, EOS counted and BOS not."""
        labels = self.labels(captions)
        log_probs = self.caption_logits(states, mask, labels).float().log_softmax(-1)
        counted = (labels != IGNORED) & (torch.arange(labels.shape[1], device=labels.device) > 0)
        chosen = log_probs.gather(2, labels.clamp_min(0)[:, :, None])[:, :, 0]
        return (chosen * counted).sum(1) / counted.sum(1).clamp_min(1)

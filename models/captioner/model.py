"""The EnCLAP captioner (arXiv 2401.17690, 2409.01160): BART over codec tokens and a retriever's audio embedding.

Encoder input of a clip of T frames, length T + 3:

    row        0                        1        2 .. T+1                       T+2
    vector     audio_embedding, proj.   BOS      sum over codebooks of codes    EOS
    position   zero                     0        1 .. T                         T+1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding_bag, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput

from ..checkpoint import load_weights, naming, plain_data, read_config, save_member
from ..published import local_architecture
from ..rows import take_rows
from ..settings import RANDOM, CaptionerConfig, CaptionerSettings
from ..tokenization import refuse_misfit, train_tokenizer, untrained_tokenizer
from .attention import use_captioner_attention
from .distillation import IGNORED, TokenTargets
from .enclap_checkpoint import enclap_settings, has_tokenizer, language_model_config, load_enclap_weights
from .long_clips import cut_windows, interpolate_rows, join_windows, pool_frames
from .masked_codec_modelling import masked_cells, masked_codec_loss, most_spans, span_mask

SPECIAL_ROWS = 3  # audio embedding, BOS, EOS
# These learn their positions, in one table after two rows that are not used.
SUPPORTED_MODEL_TYPES = ("bart", "mbart", "plbart")
POSITION_OFFSET = 2


def conditioning(audio_embeddings: dict[str, np.ndarray], retrievers: str | list[str], clips: int) -> np.ndarray:
    """Return the audio embeddings [N, D] of N clips that a captioner reads, of several retrievers side by side."""
    names = [retrievers] if isinstance(retrievers, str) else retrievers
    return np.concatenate([audio_embeddings[name] for name in names], 1) if names else no_embedding(clips)


def no_embedding(clips: int) -> np.ndarray:
    """Return what a captioner without retrievers reads, [clips, 1] zeros: the bias of its projection is left."""
    return np.zeros((clips, 1), np.float32)


class ShiftedPositions(nn.Embedding):
    """BART's learned positions moved one row down: row 0 gets a zero vector, row n the learned vector n - 1.

    Interpolated positions depend on a clip's length, so the captioner adds them itself, and the encoder adds zero.
    """

    def rows(self, lengths: Tensor, number: int, interpolated: bool) -> Tensor:
        """Return position vectors [1 or B, number, width] for clips of `lengths` [B] frames."""
        table = self.weight[POSITION_OFFSET:-1]  # the last one is beyond the longest clip that fits
        if interpolated:
            steps = ((len(table) - 1) / (lengths + SPECIAL_ROWS - 2)).clamp_max(1)
            learned = interpolate_rows(table, steps, number - 1)
        else:
            learned = table[None, : number - 1]
        return pad(learned, (0, 0, 1, 0))

    def forward(self, input_ids: Tensor, past_key_values_length: int = 0, position_ids: Tensor | None = None) -> Tensor:
        """Return zero, in place of BART's positions."""
        return self.weight.new_zeros(1)


class Captioner(nn.Module):
    """BART whose encoder reads codes [T, Q] and an audio_embedding [D]."""

    kind = "captioner"

    def __init__(self, config: CaptionerConfig, bart: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.config = config
        self.bart = bart  # of transformers, whose classes have no common type here
        self.tokenizer = tokenizer
        self.ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)  # torch.compile cannot ask a tokenizer
        if getattr(bart.config, "decoder_start_token_id", None) is None:  # mBART leaves it to the target language
            bart.config.decoder_start_token_id = tokenizer.eos_token_id
        # The defaults of generate(); BART's own would force an EOS that is not scored.
        special = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("bos", "pad", "eos")}
        bart.generation_config = GenerationConfig(
            decoder_start_token_id=bart.config.decoder_start_token_id, forced_eos_token_id=None, **special
        )
        if config.gradient_checkpointing:
            bart.gradient_checkpointing_enable({"use_reentrant": False})
        width = bart.config.d_model
        encoder = bart.model.encoder
        shifted = ShiftedPositions(bart.config.max_position_embeddings + POSITION_OFFSET, width)
        shifted.load_state_dict(encoder.embed_positions.state_dict())
        encoder.embed_positions = shifted
        use_captioner_attention(bart, config.attn_implementation)
        # One table for all codebooks; its last row is both padding and mask, a zero vector that is never trained.
        rows = config.codebooks * config.codebook_size
        self.code_embedding = nn.Embedding(rows + 1, width, padding_idx=rows)
        nn.init.normal_(self.code_embedding.weight[:-1], std=bart.config.init_std)
        self.audio_projection = nn.Linear(config.audio_embedding_dim, width)
        self.mcm_head = nn.Linear(width, rows)

    @classmethod
    def create(cls, config: CaptionerConfig, captions: Iterable[str]) -> Captioner:
        """Build for training; `captions` train the tokenizer of a language model from scratch.

        Raises:
            CheckpointError: if `config.checkpoint` cannot be loaded, or was trained on other codes or embeddings.
            ValueError: if the language model's layout does not fit.
        """
        name = config.language_model
        if config.checkpoint:
            source = config.checkpoint if has_tokenizer(config.checkpoint) else name
            model = cls(config, _untrained(_architecture(config)), AutoTokenizer.from_pretrained(source))
            load_enclap_weights(model, config.checkpoint)
            return model
        if not name.startswith(RANDOM):
            with plain_data(name):
                bart = AutoModelForSeq2SeqLM.from_pretrained(name, config=_architecture(config), dtype=torch.float32)
            return cls(config, bart, AutoTokenizer.from_pretrained(name))
        architecture = _architecture(config)
        tokenizer = train_tokenizer(config.tokenizer, captions, config.vocab_size)
        architecture.vocab_size = len(tokenizer)
        return cls(config, _untrained(architecture), tokenizer)

    @classmethod
    def layout(cls, config: CaptionerConfig) -> Captioner:
        """Lay out what `create` builds on the meta device, without weights, captions and network.

        The embedding of a tokenizer that is still to be trained has all rows of `vocab_size`.

        Raises:
            OSError, CheckpointError: if the sizes are those of a checkpoint that is not on this disk.
            ValueError: if the language model's layout does not fit.
        """
        architecture = _architecture(config, local_files_only=True)
        with torch.device("meta"):
            return cls(config, _untrained(architecture), untrained_tokenizer())

    @classmethod
    def from_enclap(cls, directory: str | Path, language_model: str = "facebook/bart-base") -> Captioner:
        """Load a checkpoint of EnCLAP's own scripts: `config.json` and `pytorch_model.bin`.

        Args:
            language_model: gives the tokenizer, by hub id or directory, if `directory` holds none; EnCLAP's scripts
                save none and use that of facebook/bart-base.

        Raises:
            CheckpointError: naming the file and the tensors that are missing, unexpected or of other shapes.
        """
        settings = enclap_settings(directory)
        config = CaptionerConfig(checkpoint=str(directory), language_model=language_model, **settings)
        return cls.create(config, []).eval()

    @classmethod
    def load(cls, directory: str | Path, settings: CaptionerSettings | None = None) -> Captioner:
        """Load what `save` wrote, under other `settings` if given; no network."""
        config = read_config(CaptionerConfig, directory, cls.kind)
        config = config.model_copy(update=dict(settings)) if settings else config
        layout = Path(directory) / "language_model"
        with naming(layout):
            architecture, tokenizer = AutoConfig.from_pretrained(layout), AutoTokenizer.from_pretrained(layout)
            refuse_misfit(tokenizer, ["bos_token", "eos_token", "pad_token"], architecture.vocab_size)
            language_model = _untrained(architecture)
        with naming(Path(directory) / "config.json"):
            model = cls(config, language_model, tokenizer)
        load_weights(model, directory)
        return model.eval()

    def save(self, directory: str | Path) -> None:
        """Write model.safetensors, config.json and language_model/ (layout and tokenizer)."""
        save_member(self, directory, self.kind, self.config)
        self.bart.config.save_pretrained(Path(directory) / "language_model")
        self.tokenizer.save_pretrained(Path(directory) / "language_model")

    @property
    def max_frames(self) -> int:
        """Number of codec frames that the position table has room for."""
        positions: int = self.bart.config.max_position_embeddings
        return positions - SPECIAL_ROWS

    def pad_codes(self, codes: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Stack codes [T_i, >=Q] into [B, max T, Q] int64 on the model's device, and their lengths [B].

        The first `codebooks` codebooks are used. With `long_clips: crop`, a clip that is longer than the position table
        is cropped: in training to a random stretch, otherwise to its beginning.
        """
        used = [self._cropped(clip)[:, : self.config.codebooks] for clip in codes]
        lengths = torch.tensor([len(clip) for clip in used])
        batch = torch.zeros(len(used), int(lengths.max()), self.config.codebooks, dtype=torch.long)
        for row, clip in zip(batch, used, strict=True):
            row[: len(clip)] = torch.from_numpy(clip.astype(np.int64))
        device = self.mcm_head.weight.device
        return batch.to(device), lengths.to(device)

    def _cropped(self, clip: np.ndarray) -> np.ndarray:
        over = len(clip) - self.max_frames
        if over <= 0 or self.config.long_clips != "crop":
            return clip
        start = int(torch.randint(over + 1, ())) if self.training else 0
        return clip[start : start + self.max_frames]

    def encode(
        self, codes: Tensor, lengths: Tensor, audio_embedding: Tensor, hidden: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the encoder.

        Args:
            codes: [B, T, Q].
            lengths: [B] valid frames.
            audio_embedding: [B, D].
            hidden: [B, T, Q] cells that the encoder must not see (masked codec modelling).

        Returns:
            states [B, R, width] and attention mask [B, R]; R is T + 3 for clips that the position table has room for.
        """
        states, mask, _ = self._encode(codes, lengths, audio_embedding, hidden)
        return states, mask

    def _encode(
        self, codes: Tensor, lengths: Tensor, audio_embedding: Tensor, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the encoder as `encode` does, and return the number [B, T] of each frame's state, too."""
        frames, mode = codes.shape[1], self.config.long_clips
        vectors = self._frame_vectors(codes, lengths, hidden)
        at = torch.arange(frames, device=codes.device).expand(len(codes), -1)
        if frames > self.max_frames and mode == "windows":
            windows = cut_windows(lengths, frames, self.max_frames, SPECIAL_ROWS)
            rows = windows.clip[:, None] * frames + windows.frames.clamp_max(frames - 1)
            cut = take_rows(vectors.flatten(0, 1), rows)
            states, mask = self._run_encoder(cut, windows.lengths, audio_embedding[windows.clip])
            joined, mask = join_windows(states, mask, windows)
            return joined, mask, windows.columns.clamp_max(joined.shape[1] - 1)
        if frames > self.max_frames and mode == "pool":
            vectors, lengths, at = pool_frames(vectors, lengths, self.max_frames)
        states, mask = self._run_encoder(vectors, lengths, audio_embedding)
        return states, mask, at + SPECIAL_ROWS - 1

    def _frame_vectors(self, codes: Tensor, lengths: Tensor, hidden: Tensor | None) -> Tensor:
        """Sum each frame's code embeddings over the codebooks: [B, T, width], zero after a clip's end."""
        batch, frames, codebooks = codes.shape
        blank = (torch.arange(frames, device=codes.device) >= lengths[:, None])[:, :, None].expand_as(codes)
        blank = blank if hidden is None else blank | hidden
        last = self.code_embedding.num_embeddings - 1
        ids = codes + self.config.codebook_size * torch.arange(codebooks, device=codes.device)
        ids = ids.masked_fill(blank, last).flatten(0, 1)
        # Never holds a tensor [B, T, Q, width].
        summed = embedding_bag(ids, self.code_embedding.weight, mode="sum", padding_idx=last)
        return summed.view(batch, frames, -1)

    def _run_encoder(self, vectors: Tensor, lengths: Tensor, audio_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Lay out frames [B, T, width], of which `lengths` [B] are valid, and return states and mask of T + 3 rows."""
        batch, frames, width = vectors.shape
        encoder, number = self.bart.model.encoder, frames + SPECIAL_ROWS
        special = torch.tensor(self.ends, device=vectors.device)
        bos, eos = encoder.embed_tokens(special).unbind()
        # EOS stands right after each clip's own last frame, as it would without padding.
        rows = pad(vectors, (0, 0, 0, 1))
        end = (torch.arange(frames + 1, device=vectors.device) == lengths[:, None])[:, :, None]
        rows = torch.where(end, eos, rows)
        head = torch.stack([self.audio_projection(audio_embedding), bos.expand(batch, width)], 1)
        interpolated = self.config.long_clips == "interpolate" and frames > self.max_frames
        positions = encoder.embed_positions.rows(lengths, number, interpolated)
        mask = (torch.arange(number, device=vectors.device) < lengths[:, None] + SPECIAL_ROWS).long()
        output = encoder(inputs_embeds=torch.cat([head, rows], 1) + positions, attention_mask=mask)
        return output.last_hidden_state, mask

    def caption_logits(self, states: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Return teacher-forced logits [N, S, vocabulary] for labels [N, S], which are -100 where padded.

        Args:
            states: [N, R, width] of the encoder.
            mask: [N, R] of valid states.
        """
        output = self.bart(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=self.decoder_input(labels),
            use_cache=False,
        )
        logits: Tensor = output.logits
        return logits

    def decoder_input(self, labels: Tensor) -> Tensor:
        """Return the token ids [N, S] that the decoder reads to predict labels [N, S]: those before each."""
        before = labels.roll(1, 1)
        before = before.masked_fill(before == IGNORED, self.bart.config.pad_token_id)
        before[:, 0] = self.bart.config.decoder_start_token_id
        return before

    def labels(self, captions: list[str]) -> Tensor:
        """Return the token ids [N, S] of N captions with BOS and EOS, -100 where padded."""
        first, last = self.ends
        tokens = self.tokenizer(captions, add_special_tokens=False)["input_ids"]
        room = self.config.max_caption_tokens - 2
        ids = [torch.tensor([first, *caption[:room], last]) for caption in tokens]
        return pad_sequence(ids, batch_first=True, padding_value=IGNORED).to(self.mcm_head.weight.device)

    def forward(
        self,
        codes: Tensor,
        lengths: Tensor,
        audio_embedding: Tensor,
        captions: list[list[str]],
        soft_targets: TokenTargets | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch: `loss` = caption cross-entropy + mcm_weight * masked codec loss, and both.

        Args:
            codes: [B, T, Q].
            lengths: [B] valid frames.
            audio_embedding: [B, D].
            captions: of each clip, equally many. The encoder runs once for a clip, the decoder once for a caption.
            soft_targets: what teachers expect of these captions' tokens; it shares the place of the cross-entropy.

        Returns:
            `loss`, `caption_loss`, if it has a weight `mcm_loss`, and with `soft_targets` `distillation_loss`.
        """
        config = self.config
        hidden = None
        if config.mcm_weight > 0:
            hidden = span_mask(lengths, codes.shape[1], codes.shape[2], config.mcm_probability, config.mcm_span)
        states, mask, columns = self._encode(codes, lengths, audio_embedding, hidden)
        each = len(captions[0])
        labels = self.labels([caption for clip in captions for caption in clip])
        logits = self.caption_logits(states.repeat_interleave(each, 0), mask.repeat_interleave(each, 0), labels)
        caption_loss = cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=config.label_smoothing
        )
        losses = {"loss": caption_loss, "caption_loss": caption_loss.detach()}
        if soft_targets is not None:
            losses |= soft_targets.join(logits, labels, caption_loss)
        if hidden is not None:
            mcm_loss = self._mcm_loss(states, columns, codes, hidden)
            losses |= {"loss": losses["loss"] + config.mcm_weight * mcm_loss, "mcm_loss": mcm_loss.detach()}
        return losses

    def _mcm_loss(self, states: Tensor, columns: Tensor, codes: Tensor, hidden: Tensor) -> Tensor:
        """Compute `masked_codec_loss` from states [B, R, width], where `columns` [B, T] number those of the frames.

        Each codebook's head reads only the frames masked in that codebook: a seventh of the work.
        """
        config = self.config
        most = len(codes) * most_spans(codes.shape[1], config.mcm_probability, config.mcm_span) * config.mcm_span
        cells, masked = masked_cells(hidden, most)
        first_row = states.shape[1] * torch.arange(len(codes), device=codes.device)
        seen = take_rows(states.flatten(0, 1), (first_row[:, None] + columns).flatten()[cells])
        weight = self.mcm_head.weight.view(config.codebooks, config.codebook_size, -1)
        bias = self.mcm_head.bias.view(config.codebooks, 1, config.codebook_size)
        logits = torch.baddbmm(bias, seen, weight.transpose(1, 2))
        return masked_codec_loss(logits, codes.flatten(0, 1).T.gather(1, cells), masked, config.mcm_codebook_weights)

    @torch.inference_mode()
    def log_likelihood(self, states: Tensor, mask: Tensor, captions: list[str]) -> Tensor:
        """Return the teacher-forced decoder_score [N]: mean log-likelihood of a token, EOS counted and BOS not."""
        labels = self.labels(captions)
        log_probs = self.caption_logits(states, mask, labels).float().log_softmax(-1)
        counted = (labels != IGNORED) & (torch.arange(labels.shape[1], device=labels.device) > 0)
        chosen = log_probs.gather(2, labels.clamp_min(0)[:, :, None])[:, :, 0]
        return (chosen * counted).sum(1) / counted.sum(1).clamp_min(1)


def _architecture(config: CaptionerConfig, local_files_only: bool = False) -> Any:
    """Return the transformers config of a captioner's language model; from scratch with all of `vocab_size`."""
    name = config.language_model
    if config.checkpoint:
        return language_model_config(config.checkpoint)
    if name.startswith(RANDOM):
        _check_family(name, name.removeprefix(RANDOM))
        return AutoConfig.for_model(name.removeprefix(RANDOM), **{**config.sizes, "vocab_size": config.vocab_size})
    found = local_architecture(name) if local_files_only else AutoConfig.from_pretrained(name)
    _check_family(name, found.model_type)
    return found


def _untrained(architecture: Any) -> Any:
    """Build a BART of transformers without a checkpoint's weights."""
    return AutoModelForSeq2SeqLM.from_config(architecture, dtype=torch.float32)


def _check_family(name: str, model_type: str) -> None:
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise ValueError(
            f"language_model: {name!r} is of type {model_type!r}; the captioner's input needs a learned position table "
            f"and a BOS token, as {', '.join(SUPPORTED_MODEL_TYPES)} have them"
        )

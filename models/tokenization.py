"""Tokenizers: loaded with a checkpoint, or trained on a corpus's captions for models from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# In the order that fixes the ids BART counts on: bos 0, pad 1, eos 2.
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
KINDS = ("wordpiece", "bpe", "unigram")


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer like BERT's (wordpiece), RoBERTa's and BART's (byte-level bpe) or XLM-R's (unigram).

    All share the special tokens and their ids: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3; every text is encoded as
    `<s> ... </s>`. The same texts give the same tokenizer.

    Raises:
        ValueError: if `kind` is not one of KINDS.
    """
    if kind not in KINDS:
        raise ValueError(f"tokenizer: found {kind!r}, expected one of {', '.join(KINDS)}")
    train = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[kind]
    tokenizer = train(list(texts), vocab_size)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL, cls_token="<s>", sep_token="</s>")


def refuse_misfit(tokenizer: PreTrainedTokenizerBase, needed: Sequence[str], rows: int) -> None:
    """Refuse a tokenizer that is not the one that a model was trained with.

    Args:
        needed: names of the special tokens that the model reads or writes, such as `pad_token`.
        rows: of the model's embeddings.

    Raises:
        ValueError: if one of these tokens is missing, or the model has no embedding for some token.
    """
    lacking = [name for name in needed if getattr(tokenizer, f"{name}_id") is None]
    if lacking:
        raise ValueError(f"the tokenizer has no {' and no '.join(lacking)}")
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens, expected {rows} at most, as the model has")


def untrained_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the special tokens alone, for models that are laid out but never read a text."""
    return train_tokenizer("wordpiece", [], len(SPECIAL))


def _wordpiece(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The pre-tokenizer divides at hyphens and apostrophes, and only these replacements join what it divided.
    joined = [decoders.Replace(f" {mark} ", mark) for mark in "-'"]
    tokenizer.decoder = decoders.Sequence([decoders.WordPiece(), decoders.Fuse(), *joined])
    # The trainer numbers a character when it first meets it, in the order of a hash map that differs from run to run,
    # and breaks ties by number. So all are numbered here: special tokens keep their places.
    characters = sorted(set().union(*map(tokenizer.normalizer.normalize_str, texts)) - {" "})
    numbered = [*SPECIAL.values(), *characters, *(f"##{character}" for character in characters)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=numbered, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _with_model(tokenizer, WordPiece(tokenizer.get_vocab(), unk_token=SPECIAL["unk_token"]))


def _bpe(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(BPE(unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = list(SPECIAL.values())
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token=SPECIAL["unk_token"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer sums over a hash map, so last digits, and the order of equally likely pieces, differ from run to run.
    learnt = json.loads(tokenizer.to_str())["model"]["vocab"][len(special) :]
    ordered = sorted(((piece, round(score, 2)) for piece, score in learnt), key=lambda entry: (-entry[1], entry[0]))
    vocab = [*((token, 0.0) for token in special), *ordered]
    return _with_model(tokenizer, Unigram(vocab, unk_id=special.index(SPECIAL["unk_token"])))


def _with_model(tokenizer: Tokenizer, model: Unigram | WordPiece) -> Tokenizer:
    """Return the same tokenizer with another model, without the special tokens of its training."""
    new = Tokenizer(model)
    new.normalizer, new.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    new.decoder = tokenizer.decoder
    return new

"""Mixed pairs of clips have the power of both sounds, and both captions."""

import numpy as np
import pytest
import torch

from models.encoders.log_mel import pad_log_mels
from models.retriever.mixup import mix_pairs

CAPTIONS = [f"sound {row}." for row in range(8)]


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Clip n: n + 1 in power everywhere, 40 + n frames long."""
    return pad_log_mels([np.full((40 + n, 5), 10 * np.log10(n + 1), np.float32) for n in range(8)])


def test_mixes_powers_and_joins_captions(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    log_mel, lengths, captions = mix_pairs(*batch, CAPTIONS, 0.4, np.random.default_rng(0))
    mixed = [row for row in range(8) if captions[row] != CAPTIONS[row]]
    assert len(mixed) == 2
    for row in mixed:
        first, second = (int(part.removeprefix("sound ").rstrip(".")) for part in captions[row].split(" and "))
        assert first == row != second
        shorter, longer = sorted((40 + first, 40 + second))
        assert lengths[row] == longer
        power = 10 ** (log_mel[row] / 10)
        share = (power[0, 0] - (second + 1)) / (first - second)
        assert 0 <= share <= 1
        torch.testing.assert_close(power[:shorter], torch.full((shorter, 5), float(power[0, 0])))
        after = share * (first + 1) if first > second else (1 - share) * (second + 1)
        torch.testing.assert_close(power[shorter:longer].mean(), after)
        torch.testing.assert_close(log_mel[row, longer:], batch[0][row, longer:])
    unmixed = [row for row in range(8) if row not in mixed]
    assert torch.equal(log_mel[unmixed], batch[0][unmixed])
    assert torch.equal(lengths[unmixed], batch[1][unmixed])


def test_off_and_drawn_anew(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    log_mel, lengths, captions = mix_pairs(*batch, CAPTIONS, 0.0, np.random.default_rng(0))
    assert torch.equal(log_mel, batch[0])
    assert torch.equal(lengths, batch[1])
    assert captions == CAPTIONS
    rng = np.random.default_rng(0)
    assert mix_pairs(*batch, CAPTIONS, 0.4, rng)[2] != mix_pairs(*batch, CAPTIONS, 0.4, rng)[2]


def test_in_sequence_the_other_clip_follows(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    log_mel, lengths, captions = mix_pairs(*batch, CAPTIONS, 0.4, np.random.default_rng(0), "sequence")
    mixed = [row for row in range(8) if captions[row] != CAPTIONS[row]]
    assert len(mixed) == 2
    for row in mixed:
        assert " and " not in captions[row].replace(" and then ", "")
        first, second = (int("".join(filter(str.isdigit, part))) for part in captions[row].split(" sound "))
        assert first == row != second
        assert lengths[row] == 80 + first + second
        own, other = log_mel[row, : 40 + first], log_mel[row, 40 + first : lengths[row]]
        assert torch.equal(own, batch[0][first, : 40 + first])
        assert torch.equal(other, batch[0][second, : 40 + second])
        assert bool((log_mel[row, lengths[row] :] == -100).all())
    for row in set(range(8)) - set(mixed):
        assert torch.equal(log_mel[row, : 40 + row], batch[0][row, : 40 + row])
        assert bool((log_mel[row, 40 + row :] == -100).all())


def test_either_draws_for_each_pair(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    drawn = [mix_pairs(*batch, CAPTIONS, 0.4, np.random.default_rng(seed), "either")[1].max() for seed in range(20)]
    assert any(longest > 47 for longest in drawn)
    assert any(longest == 47 for longest in drawn)

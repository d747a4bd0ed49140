"""NT-Xent and triplet losses against their definitions, pair by pair, and as losses of a retriever."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, pad

from models.encoders.log_mel import pad_log_mels
from models.retriever.contrastive import nt_xent_loss, triplet_loss
from models.retriever.model import Retriever
from models.settings import AudioEncoderConfig, LogMelConfig, RetrieverConfig, RetrieverSettings, TextEncoderConfig

from ..conftest import CAPTIONS

GROUPS = torch.tensor([0, 1, 0, 2, 3, 2, 2])


def embeddings(noise: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    audio = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    text = audio + noise * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    return normalize(audio, dim=-1), normalize(text, dim=-1)


def hardest(row: Tensor, negatives: list[int], number: int) -> list[int]:
    return sorted(negatives, key=lambda j: -float(row[j]))[: number or None]


@pytest.mark.parametrize("hard_negatives", [0, 1, 3])
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["alone", "grouped"])
def test_nt_xent_by_definition(groups: Tensor | None, hard_negatives: int) -> None:
    audio, text = embeddings()
    ids = range(7) if groups is None else groups.tolist()
    expected = 0.0
    for cosine in (audio @ text.T, text @ audio.T):
        for i, row in enumerate((cosine / 0.2).exp()):
            right = [j for j in range(7) if ids[j] == ids[i]]
            others = hardest(row, [j for j in range(7) if ids[j] != ids[i]], hard_negatives)
            expected -= sum(math.log(row[j] / row[right + others].sum()) / len(right) for j in right) / 14
    assert float(nt_xent_loss(audio, text, 5.0, groups, hard_negatives)) == pytest.approx(expected)


def test_nt_xent_is_that_of_clip() -> None:
    audio, text = embeddings()
    logits, own = 20 * audio @ text.T, torch.arange(7)
    expected = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    torch.testing.assert_close(nt_xent_loss(audio, text, torch.tensor(20.0)), expected)


def test_nt_xent_of_a_blind_model_is_log_b() -> None:
    same = torch.ones(7, 5)
    assert float(nt_xent_loss(same, -same, 10.0)) == pytest.approx(math.log(7))


@pytest.mark.parametrize("hard_negatives", [0, 1, 3])
@pytest.mark.parametrize("groups", [None, GROUPS], ids=["alone", "grouped"])
def test_triplet_by_definition(groups: Tensor | None, hard_negatives: int) -> None:
    audio, text = embeddings()
    ids = range(7) if groups is None else groups.tolist()
    expected = 0.0
    for cosine in (audio @ text.T, text @ audio.T):
        for i, row in enumerate(cosine):
            others = hardest(row, [j for j in range(7) if ids[j] != ids[i]], hard_negatives)
            expected += sum(max(0.0, 0.3 + float(row[j] - row[i])) for j in others) / 7
    assert float(triplet_loss(audio, text, 0.3, groups, hard_negatives)) == pytest.approx(expected)


def test_a_batch_of_one_clip_has_no_negatives() -> None:
    audio, text = (x.requires_grad_() for x in embeddings())
    one = torch.zeros(7, dtype=torch.long)
    for hard_negatives in (0, 2):
        loss = triplet_loss(audio, text, 0.2, one, hard_negatives)
        loss.backward()
        assert float(loss.detach()) == 0
        assert float(nt_xent_loss(audio, text, 3.0, one, hard_negatives).detach()) >= math.log(7)


def test_half_precision_does_not_show_under_autocast() -> None:
    audio, text = (x.float().requires_grad_() for x in embeddings(noise=0.0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent_loss(audio, text, 100.0) + triplet_loss(audio, text, 0.2, hard_negatives=1)
    loss.backward()
    expected = nt_xent_loss(audio, text, 100.0) + triplet_loss(audio, text, 0.2, hard_negatives=1)
    torch.testing.assert_close(loss, expected)
    assert audio.grad is not None
    assert torch.isfinite(audio.grad).all()


# --- as losses of a retriever --------------------------------------------------------------------------------------

CONTRASTIVE: list[dict[str, object]] = [
    {"loss": "nt-xent"},
    {"loss": "nt-xent", "metric": "full", "hard_negatives": 2, "temperature": 0.1},
    {"loss": "triplet", "margin": 0.5},
    {"loss": "triplet", "hard_negatives": 1},
    {"transported_mass": 0.9, "epsilon": 0.1},
]


def make(settings: Mapping[str, object]) -> Retriever:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = TextEncoderConfig(name="random:bert", sizes=sizes, vocab_size=300)
    audio = AudioEncoderConfig(backbone="random:convnext", depths=(1, 1, 1, 1), dims=(4, 8, 8, 16), layer_scale=1.0)
    config = {"audio_encoder": audio, "text_encoder": text, "joint_dim": 8, "hidden_dim": 16, "dropout": 0.0}
    return Retriever.create(
        RetrieverConfig.model_validate({**config, **settings, "log_mel": LogMelConfig(n_mels=64)}), CAPTIONS
    )


@pytest.mark.parametrize("settings", CONTRASTIVE, ids=str)
def test_a_retriever_learns_and_survives_saving(settings: dict[str, object], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log_mels = [(20 * rng.normal(size=64) + rng.normal(size=(n, 64))).astype(np.float16) for n in (40, 50, 45, 60)]
    retriever, batch = make(settings), pad_log_mels(log_mels)
    optimizer = torch.optim.Adam(retriever.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = retriever(*batch, CAPTIONS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.97 * losses[0]
    assert all(p.grad is not None for name, p in retriever.named_parameters() if "encoder" not in name)
    retriever.save(tmp_path)
    loaded = Retriever.load(tmp_path)
    retriever.eval()
    audio, text = loaded.audio_embeddings(log_mels), loaded.text_embeddings(CAPTIONS)
    expected = retriever.similarity(retriever.text_embeddings(CAPTIONS), retriever.audio_embeddings(log_mels))
    np.testing.assert_allclose(loaded.similarity(text, audio), expected, atol=1e-5)


def test_a_retriever_has_the_parameters_of_its_loss_alone() -> None:
    def own(settings: dict[str, object]) -> set[str]:
        return {name for name in make(settings).state_dict() if name.startswith(("metric", "log_scale"))}

    assert own({}) == own({"transported_mass": 0.9}) == {"metric.factor"}
    assert own({"loss": "nt-xent"}) == {"log_scale"}
    assert own({"loss": "triplet"}) == set()
    assert own({"loss": "triplet", "metric": "diagonal"}) == {"metric.factor"}


def test_the_loss_is_that_of_the_similarity_that_ranks() -> None:
    """Under a learned metric, too."""
    audio, text = (pad(x.float(), (0, 3)) for x in embeddings())
    own = torch.arange(7)
    for settings in ({"loss": "nt-xent", "metric": "full"}, {"loss": "triplet", "metric": "diagonal"}):
        retriever = make(settings)
        with torch.no_grad():
            retriever.metric.factor.normal_()
        found = retriever.pair_loss(audio, text).detach()
        s = -torch.from_numpy(retriever.similarity(text.numpy(), audio.numpy())).square() / 2
        if settings["loss"] == "nt-xent":
            expected = (cross_entropy(s / 0.07, own) + cross_entropy(s.T / 0.07, own)) / 2
        else:
            expected = torch.zeros(())
            for x in (s, s.T):
                expected = expected + (0.2 + x - x.diagonal()[:, None]).clamp_min(0).fill_diagonal_(0).sum() / 7
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_temperature_is_learned_within_the_bounds_of_clip() -> None:
    retriever = make({"loss": "nt-xent", "temperature": 0.05})
    assert float(retriever.log_scale.exp().detach()) == pytest.approx(20)
    with torch.no_grad():
        retriever.log_scale.fill_(9.0)
    audio, text = (pad(x.float(), (0, 3)) for x in embeddings())
    retriever.pair_loss(audio, text).backward()
    assert float(retriever.log_scale.exp().detach()) == pytest.approx(100)
    assert retriever.log_scale.grad is not None
    assert float(retriever.log_scale.grad.abs()) > 0, "at the bound it still learns"


def test_groups_reach_the_loss() -> None:
    audio, text = (pad(x.float(), (0, 3)) for x in embeddings())
    for settings in ({}, *CONTRASTIVE):
        retriever = make(settings)
        alone, grouped = (float(retriever.pair_loss(audio, text, groups).detach()) for groups in (None, GROUPS))
        assert alone != grouped


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 0.3}, "margin has no effect with loss 'm-ltm', only with triplet"),
        ({"loss": "nt-xent", "epsilon": 0.05}, "epsilon has no effect with loss 'nt-xent', only with m-ltm"),
        ({"loss": "triplet", "temperature": 0.1}, "temperature has no effect"),
        ({"hard_negatives": 1}, "only with nt-xent or triplet"),
        ({"loss": "triplet", "transported_mass": 0.9}, "transported_mass has no effect"),
        ({"transported_mass": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_of_another_loss_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RetrieverSettings.model_validate(settings)


def test_the_metric_is_the_cosine_unless_told() -> None:
    assert RetrieverSettings().metric == "full"
    assert RetrieverSettings.model_validate({"loss": "nt-xent"}).metric == "identity"
    given = RetrieverSettings.model_validate({"loss": "triplet", "metric": "diagonal"})
    assert RetrieverSettings.model_validate(given.model_dump()).metric == "diagonal"

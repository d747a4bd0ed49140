"""Two workers with half of the weights each train, stop and go on as one with all of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from models.captioner.model import Captioner
from ray_jobs.experiment.member_config import CaptionerMember, RetrieverMember
from ray_jobs.experiment.training_config import Training
from ray_jobs.training.fsdp import Shards
from ray_jobs.training.optimizer import parameter_groups
from tests.models.conftest import CAPTIONS

TRAINING = Training(epochs=1, learning_rate=1e-2, clip_norm=0.5, parallel="fsdp")
EPS = 1e-3  # keys' biases have no gradient but rounding, which a small one would make steps of


def loss(captioner: Any, rank: int) -> Tensor:
    """Of one worker's two clips."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 16, (30 + 10 * n, 3)).astype(np.int16) for n in range(4)]
    audio = torch.from_numpy(rng.normal(size=(4, 8)).astype(np.float32))
    captions = [[caption] for caption in CAPTIONS]
    mine = slice(2 * rank, 2 * rank + 2)
    found: Tensor = captioner(*captioner.pad_codes(codes[mine]), audio[mine], captions[mine])["loss"]
    return found


def load(directory: str) -> Captioner:
    captioner = Captioner.load(directory).train()
    captioner.config = captioner.config.model_copy(update={"mcm_weight": 0.0})
    for module in captioner.modules():
        if hasattr(module, "dropout"):
            setattr(module, "dropout", 0.0)  # noqa: B010 a module takes attributes of any type, its stub tensors only
    return captioner


def worker(rank: int, directory: str) -> None:
    """Three steps, with everything saved and loaded again after the second."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2)
    start, norms = f"{directory}/start", []
    saved: dict[str, Any] | None = None
    for steps in (2, 1):
        shards = Shards(load(start), torch.device("cpu"))
        optimizer = torch.optim.AdamW(parameter_groups(shards.model, TRAINING), eps=EPS)
        if saved:
            shards.load_optimizer(optimizer, saved)
        for _ in range(steps):
            optimizer.zero_grad()
            for last in (False, True):  # twice the same part
                shards.model.set_requires_gradient_sync(last)
                (loss(shards.model, rank) / 2).backward()
            norms.append(float(shards.clip_gradients(TRAINING.clip_norm)))
            optimizer.step()
        assert sum(one.to_local().numel() for one in shards.model.parameters()) < 0.7 * sum(
            one.numel() for one in shards.model.parameters()
        ), "a worker holds half"
        whole, state = shards.whole(), shards.optimizer_state(optimizer)
        start = f"{directory}/{steps}"
        if whole:
            whole.save(start)
            torch.save(state, f"{directory}/optimizer.pt")
        dist.barrier()
        saved = torch.load(f"{directory}/optimizer.pt", weights_only=True)
    if rank == 0:
        torch.save(norms, f"{directory}/norms.pt")
    dist.destroy_process_group()


def test_pieces_train_and_resume_as_the_whole(tmp_path: Path) -> None:
    from .test_tasks import small_captioner  # not in the workers, which would import Ray

    captioner = small_captioner(0.1)
    captioner.save(tmp_path / "start")
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    alone = load(str(tmp_path / "start"))
    optimizer = torch.optim.AdamW(parameter_groups(alone, TRAINING), eps=EPS)
    norms = []
    for _ in range(3):
        optimizer.zero_grad()
        ((loss(alone, 0) + loss(alone, 1)) / 2).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(alone.parameters(), TRAINING.clip_norm)))
        optimizer.step()
    assert torch.load(tmp_path / "norms.pt", weights_only=True) == pytest.approx(norms, rel=1e-4)
    assert min(norms) > TRAINING.clip_norm, "clipping has something to do"
    found = Captioner.load(tmp_path / "1").state_dict()
    first = captioner.state_dict()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=0, msg=name)
    assert any(not torch.allclose(first[name], value, atol=1e-2) for name, value in found.items())


def test_what_cannot_be_sharded_is_refused() -> None:
    training = {"epochs": 1, "learning_rate": 1e-3, "parallel": "fsdp"}
    with pytest.raises(ValueError, match=r"ema_decay: there is no moving average of weights in pieces"):
        Training.model_validate(training | {"ema_decay": 0.9})
    with pytest.raises(ValueError, match=r"training.parallel: fsdp is for captioners"):
        RetrieverMember.model_validate({"kind": "retriever", "training": training, "resources": {"workers": 2}})
    with pytest.raises(ValueError, match=r"training.parallel: fsdp needs resources.workers above 1"):
        CaptionerMember.model_validate({"kind": "captioner", "audio_embedding": "r", "training": training})

"""A batch spread over two processes trains as the same batch in one."""

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from models.encoders.log_mel import pad_log_mels
from models.retriever.model import Retriever
from models.settings import WrongCaptionsConfig

from .conftest import CAPTIONS
from .retriever.test_model import KINDS, assert_same_gradients, make

WORKERS = 2
WRONG = [["a cat"], [], ["a bell and footsteps", "a bell"], [], [], ["wind and rain"], [], ["a car"]]  # of each row
CLIPS = torch.tensor([0, 1, 2, 3, 4, 0, 6, 1])  # two come twice, each time on another worker or on the same


def pairs() -> tuple[list[np.ndarray], list[str]]:
    rng = np.random.default_rng(0)
    log_mels = [(20 * rng.normal(size=64) + rng.normal(size=(n, 64))).astype(np.float16) for n in (60, 90, 45, 130) * 2]
    return log_mels, [*CAPTIONS, *(f"{caption} again" for caption in CAPTIONS)]


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def worker(rank: int, directory: str) -> None:
    """Compute one step's gradients of rows rank, rank + 2, ... of the batch, and keep them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=WORKERS)
    retriever = Retriever.load(f"{directory}/start").double().train()
    parallel = DistributedDataParallel(retriever, find_unused_parameters=True)
    log_mels, captions = pairs()
    batch, lengths = pad_log_mels(log_mels[rank::WORKERS])
    parallel(
        batch.double(), lengths, captions[rank::WORKERS], CLIPS[rank::WORKERS], 3, wrong=WRONG[rank::WORKERS]
    ).backward()
    torch.save(gradients(parallel.module), f"{directory}/{rank}.pt")
    dist.destroy_process_group()


def test_gradients_of_two_workers_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    retriever = make(*KINDS[0], wrong_captions=WrongCaptionsConfig(number=2))
    log_mels, captions = pairs()
    retriever.audio_encoder.standardise(log_mels)
    retriever.save(tmp_path / "start")
    batch, lengths = pad_log_mels(log_mels)
    retriever.double().train()(batch.double(), lengths, captions, CLIPS, wrong=WRONG).backward()
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=WORKERS)
    alone = gradients(retriever)
    for rank in range(WORKERS):
        assert_same_gradients(torch.load(tmp_path / f"{rank}.pt", weights_only=True), alone)

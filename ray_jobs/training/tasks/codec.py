"""Train the small DAC of the built-in corpus.

Only DAC's reconstruction and codebook losses are used, without a discriminator: the codes are read by a captioner, so
they have to tell sounds apart; an adversarial loss adds realism of the decoded audio, at several times the cost. In the
first epochs nothing is quantized; then the codebooks are seeded from the encoder's outputs at the start of each epoch
(models/codec/losses.py says why); in the last epochs only the decoder learns, so that the codes no longer change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dac
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from corpora.soundscapes.render import render
from corpora.soundscapes.sampling import sample_scenes
from models.checkpoint import save_tensors
from models.codec.base import Codec
from models.codec.dac import DacCodec
from models.codec.losses import (
    ReconstructionLoss,
    bag_of_codes,
    count_codes,
    perplexity,
    probe_accuracy,
    project_only,
    seed_codebooks,
)
from models.files import write_json
from ray_jobs.experiment.codec_config import DacSettings
from ray_jobs.training.codec_job import CodecJob
from ray_jobs.training.optimizer import warm_cosine
from ray_jobs.training.tasks.base import Task, Trained, Validation

WARMUP_STEPS, LAST_RATE = 20, 0.1  # of the learning rate; the rate at the end is a tenth of the peak
BETAS = (0.8, 0.99)  # of AdamW, as in conf/base.yml of descript-audio-codec
BY_BOOK = ("perplexity", "used_entries")  # validation values of each codebook
NAME = "dac-soundscapes-16khz"
RENDITIONS = 4  # of each scene that codes are probed with


class TrainableDac(nn.Module):
    """A dac.DAC in training, with files from which training goes on exactly."""

    def __init__(self, settings: DacSettings) -> None:
        super().__init__()
        arguments = settings.model_dump()
        self.dac = dac.DAC(**arguments, decoder_rates=arguments["encoder_rates"][::-1])

    def save(self, directory: Path) -> None:
        """Write the weights as they are trained; `DacCodec.save` writes those of a codec."""
        directory.mkdir(parents=True, exist_ok=True)
        save_tensors(directory / "dac.safetensors", self.dac.state_dict())

    @classmethod
    def load(cls, directory: Path, settings: DacSettings) -> TrainableDac:
        """Read what `save` wrote."""
        model = cls(settings)
        model.dac.load_state_dict(load_file(directory / "dac.safetensors"))
        return model


class CodecTask(Task):
    """Reads random pieces of random scenes, which are rendered into memory.

    Each phase needs the one before, so the last epoch is the codec: `epoch` is the value that chooses it.
    """

    monitor, sign = "epoch", 1
    memory_remedy = "lower batch_size or crop_s"

    def __init__(self, job: CodecJob) -> None:
        self.job, self.config = job, job.config
        self.reconstruction = ReconstructionLoss(self.config.model.sample_rate)
        self.draws = torch.Generator()  # of seeding and crops; seeded for each epoch

    @cached_property
    def waveforms(self) -> dict[str, list[np.ndarray]]:
        """Return the scenes of the splits `train` and `validation`, each [samples]."""
        sizes = {"train": self.config.corpus.train, "validation": self.config.corpus.validation}
        scenes, rate = sample_scenes(sizes, self.config.corpus.seed), self.config.model.sample_rate
        return {split: [render(scene, rate) for scene in scenes[split]] for split in sizes}

    def create(self) -> TrainableDac:
        return TrainableDac(self.config.model)

    def load(self, directory: Path) -> TrainableDac:
        return TrainableDac.load(directory, self.config.model)

    start_from = load

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=self.config.learning_rate, betas=BETAS)

    def lr_lambda(self) -> Callable[[int], float]:
        return warm_cosine(self.config.epochs * self.config.steps_per_epoch, WARMUP_STEPS, LAST_RATE)

    def steps_per_epoch(self) -> int:
        return self.config.steps_per_epoch

    def begin_epoch(self, model: Any, epoch: int) -> None:
        """Seed all draws of the epoch and, where it is due, the codebooks; freeze all but the decoder at the end."""
        seed = self.config.seed * 1_000_003 + epoch
        torch.manual_seed(seed)
        self.draws.manual_seed(seed)
        first_of_decoder = self.config.epochs - self.config.decoder_epochs
        if self.config.projection_epochs <= epoch <= first_of_decoder:
            self._seed_codebooks(model.dac)
        for part in (model.dac.encoder, model.dac.quantizer):
            part.requires_grad_(epoch < first_of_decoder)

    def seed_step(self, epoch: int, step: int, rank: int) -> None:
        """Leave torch's generator as it is: an epoch's draws follow each other, and epochs are resumed whole."""

    def batches(self, epoch: int, rank: int, world: int) -> Iterator[tuple[Tensor, bool]]:
        """Yield pieces of scenes [batch_size, 1, samples], and whether they are to be quantized."""
        for _ in range(self.config.steps_per_epoch):
            yield self._crops(), epoch >= self.config.projection_epochs

    def loss(self, model: Any, batch: tuple[Tensor, bool], device: torch.device) -> dict[str, Tensor]:
        """Return the reconstruction loss, and the weighted sum of all losses."""
        (waveforms, is_quantized), config, model = batch, self.config, model.dac
        waveforms = waveforms.to(device)
        if not is_quantized:
            books = int(torch.randint(1, config.model.n_codebooks + 1, ()))
            audio = model.decode(project_only(model.quantizer, model.encoder(waveforms), books))
            reconstruction = self.reconstruction(audio, waveforms)
            return {"reconstruction": reconstruction, "loss": config.reconstruction_weight * reconstruction}
        output = model(waveforms)
        reconstruction = self.reconstruction(output["audio"], waveforms)
        loss = (
            config.reconstruction_weight * reconstruction
            + config.commitment_weight * output["vq/commitment_loss"]
            + config.codebook_weight * output["vq/codebook_loss"]
        )
        return {"reconstruction": reconstruction, "loss": loss}

    def validate(self, model: TrainableDac) -> Validation:
        """Compute the values of `validation_values` on the codec as it is, those of codebooks one by one."""
        found = validation_values(DacCodec.from_dac(model.dac), self.reconstruction, self.waveforms["validation"])
        by_book = {f"{key}_{book}": value for key in BY_BOOK for book, value in enumerate(found.pop(key), 1)}
        return Validation({**found, **by_book})

    def publish(self, trained: Trained, commit: str) -> None:
        """Write codec.safetensors, codec.json and metrics.json."""
        config, output = self.config, self.job.output
        codec = DacCodec.from_dac(self.load(trained.kept / str(trained.epochs[0])).dac, NAME)
        history = [_by_book(values) for values in trained.history]
        metrics = {
            **_by_book(trained.best),
            "class_from_codes": probe(codec, config.corpus.probe, config.corpus.seed) if config.corpus.probe else None,
            "steps": config.epochs * config.steps_per_epoch,
            "training_seconds": sum(values["seconds"] for values in trained.history),
        }
        codec.save(output / "codec.safetensors", training=self.job.settings(), metrics=metrics, commit=commit)
        write_json(output / "metrics.json", {**metrics, "history": history})

    def _crops(self) -> Tensor:
        """Draw random pieces of random training scenes, [batch_size, 1, samples]."""
        scenes, length = self.waveforms["train"], round(self.config.crop_s * self.config.model.sample_rate)
        pieces = []
        for scene in torch.randint(len(scenes), (self.config.batch_size,), generator=self.draws).tolist():
            waveform = torch.from_numpy(scenes[scene])
            start = int(torch.randint(max(1, len(waveform) - length), (), generator=self.draws))
            piece = waveform[start : start + length]
            pieces.append(nn.functional.pad(piece, (0, length - len(piece))))
        return torch.stack(pieces)[:, None]

    @torch.no_grad()
    def _seed_codebooks(self, model: dac.DAC) -> None:
        scenes = self.waveforms["train"]
        chosen = torch.randperm(len(scenes), generator=self.draws)[: self.config.seed_scenes].tolist()
        waveforms = [torch.from_numpy(scenes[scene])[None, None] for scene in chosen]
        latents = [model.encoder(model.preprocess(waveform, model.sample_rate)) for waveform in waveforms]
        seed_codebooks(model.quantizer, torch.cat(latents, dim=2), self.draws)


def validation_values(codec: DacCodec, reconstruction: nn.Module, waveforms: list[np.ndarray]) -> dict[str, Any]:
    """Compute the reconstruction loss of whole clips, that of silence for comparison, and the use of each codebook.

    As long as the codebooks are not seeded, these are the values of random codebooks.
    """
    codes = codec.encode(waveforms)
    losses, silences = [], []
    for waveform, of_clip in zip(waveforms, codes, strict=True):
        decoded = torch.from_numpy(codec.decode(of_clip))[None, None, : len(waveform)]
        target = torch.from_numpy(waveform)[None, None]
        losses.append(float(reconstruction(decoded, target)))
        silences.append(float(reconstruction(torch.zeros_like(target), target)))
    stacked = torch.cat([torch.from_numpy(of_clip).long() for of_clip in codes]).T[None]  # [1, Q, all frames]
    counts = count_codes(stacked, codec.codebook_size)
    return {
        "validation_reconstruction": sum(losses) / len(losses),
        "validation_silence": sum(silences) / len(silences),
        "perplexity": [perplexity(of_book) for of_book in counts],
        "used_entries": [int((of_book > 0).sum()) for of_book in counts],
    }


def _by_book(values: dict[str, float]) -> dict[str, Any]:
    """Gather the values of single codebooks into lists again."""
    lists = {key: [value for name, value in values.items() if name.startswith(f"{key}_")] for key in BY_BOOK}
    return {name: value for name, value in values.items() if not name.startswith(BY_BOOK)} | lists


def probe(codec: Codec, scenes: int, seed: int) -> dict[str, float]:
    """Measure how well the class of a scene with one event is recognised from its bag of codes alone.

    A third of the scenes is tested on: other attributes of the classes, each in four renditions.
    """
    alone = [s for s in sample_scenes({"probe": scenes}, seed + 1)["probe"] if len(s.events) == 1]
    alone.sort(key=lambda scene: scene.events[0].kind)  # so that every third scene leaves scenes of all classes
    bags, labels = {}, {}
    for split, of_split in (("test", alone[::3]), ("train", [s for at, s in enumerate(alone) if at % 3])):
        renditions = [replace(scene, seed=scene.seed + number) for scene in of_split for number in range(RENDITIONS)]
        codes = codec.encode([render(scene, codec.sample_rate) for scene in renditions])
        bags[split] = bag_of_codes(codes, codec.codebook_size)
        labels[split] = np.asarray([scene.events[0].kind for scene in renditions])
    accuracy = probe_accuracy(bags["train"], labels["train"], bags["test"], labels["test"])
    return {
        **accuracy,
        "classes": len(set(labels["test"])),
        "train_clips": len(bags["train"]),
        "test_clips": len(bags["test"]),
    }

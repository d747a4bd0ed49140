"""train_codec: trains the small DAC shipped with the project on the built-in corpus.

Reconstruction and DAC's two codebook losses alone, no discriminator: the codes are read by a captioner, so they have
to tell sounds apart; what an adversarial loss adds is realism of the decoded audio, at several times the cost. In the
first epochs nothing is quantized; then the codebooks are seeded from the encoder's outputs at the start of each epoch
(models/codec/losses.py says why), and in the last epochs only the decoder learns, so that they stay where they are.

Example: enclap train-codec experiments/codec.yaml epochs=16 seed=1
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from pydantic import Field, model_validator
from ray.train.torch import TorchTrainer

from corpora.soundscapes.render import render
from corpora.soundscapes.sampling import sample_scenes
from models.files import write_json
from models.settings import Settings
from ray_jobs.experiment.config import ConfigError
from ray_jobs.experiment.fingerprint import fingerprint
from ray_jobs.run.directory import commit
from ray_jobs.run.entry import run_command

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from models.codec.base import Codec
    from models.codec.dac import DacCodec


class DacSettings(Settings):
    """Arguments of `dac.DAC`."""

    encoder_dim: int = Field(default=8, gt=0, description="channels of the encoder's first layer")
    encoder_rates: list[int] = Field(
        default=[10, 8, 8], min_length=1, description="strides of the encoder; the decoder has them in reverse"
    )
    latent_dim: int = Field(default=64, gt=0, description="channels of the latents that are quantized")
    decoder_dim: int = Field(default=64, gt=0, description="channels of the decoder's first layer")
    n_codebooks: int = Field(default=4, gt=0, description="number of codebooks")
    codebook_size: int = Field(default=256, gt=1, description="entries of a codebook")
    codebook_dim: int = Field(default=8, gt=0, description="dimensions of an entry")
    quantizer_dropout: float = Field(
        default=0.5, ge=0, le=1, description="share of the clips that are trained on their first codebooks only"
    )
    sample_rate: int = Field(default=16_000, gt=0, description="sampling rate, in Hz")


class CorpusSettings(Settings):
    """Scenes of the built-in corpus, rendered into memory."""

    train: int = Field(default=400, gt=0, description="number of training scenes")
    validation: int = Field(default=32, gt=0, description="number of validation scenes")
    probe: int = Field(
        default=2400,
        ge=0,
        description="number of scenes to probe the codes with: the sounds of those with one event are classified by "
        "their codes; 0: none",
    )
    seed: int = Field(0, description="seed of all scenes")


class CodecExperiment(Settings):
    """A file for `enclap train-codec`, such as `experiments/codec.yaml`."""

    name: str = Field(default="codec", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run directory")
    storage_path: str = Field("runs", description="where run directories lie")
    seed: int = Field(0, description="seed of weights, crops and batches")
    model: DacSettings = DacSettings()
    corpus: CorpusSettings = CorpusSettings()
    epochs: int = Field(gt=0, description="number of epochs, the first and last ones below among them")
    steps_per_epoch: int = Field(default=50, gt=0, description="optimizer steps of an epoch")
    batch_size: int = Field(default=16, gt=1, description="crops per step")
    crop_s: float = Field(default=1.0, gt=0, description="length of a crop, in seconds")
    learning_rate: float = Field(default=1e-3, gt=0, description="highest learning rate of the schedule")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    reconstruction_weight: float = Field(default=15.0, gt=0, description="weight of the reconstruction loss")
    commitment_weight: float = Field(default=0.25, gt=0, description="weight of the commitment loss")
    codebook_weight: float = Field(default=1.0, gt=0, description="weight of the codebook loss")
    projection_epochs: int = Field(default=2, ge=0, description="first epochs, in which nothing is quantized")
    decoder_epochs: int = Field(default=3, ge=1, description="last epochs, in which only the decoder learns")
    seed_scenes: int = Field(default=120, gt=0, description="scenes whose latents the codebooks are seeded from")
    threads: int = Field(default=1, gt=0, description="CPU threads of the one worker")

    @model_validator(mode="after")
    def _epochs_reach(self) -> CodecExperiment:
        least = self.projection_epochs + self.decoder_epochs
        if self.epochs < least:
            raise ValueError(f"epochs: found {self.epochs}, expected at least projection + decoder epochs = {least}")
        return self


def run(config: CodecExperiment) -> Path:
    """Train, or resume, and return the directory of codec.safetensors, codec.json and metrics.json."""
    output = Path(config.storage_path).resolve() / config.name
    resources = {"CPU": float(config.threads)}
    if ray.cluster_resources().get("CPU", 0.0) < config.threads:
        raise ConfigError(f"threads: found {config.threads}, the cluster has {ray.cluster_resources().get('CPU', 0):g}")
    TorchTrainer(
        train_worker,
        train_loop_config={"config": config.model_dump(), "output": str(output), "commit": commit()},
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker=resources),
        run_config=ray.train.RunConfig(
            # The settings are in the name, so other settings never continue old weights.
            name=f"{config.name}-{fingerprint(config)}",
            storage_path=str(output / "checkpoints"),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=2),
        ),
    ).fit()
    return output


def train_worker(settings: dict[str, Any]) -> None:
    """What runs in the Ray Train worker: all epochs from the last checkpoint on, then the final files."""
    import torch

    config = CodecExperiment.model_validate(settings["config"])
    torch.set_num_threads(config.threads)
    training = _Training(config)
    for epoch in range(len(training.history), config.epochs):
        values = training.run_epoch(epoch)
        # Ray Train logs what `print` prints, so that it would show twice.
        sys.stdout.write(" ".join(f"{key}={_short(value)}" for key, value in values.items()) + "\n")
        sys.stdout.flush()
        training.report(values)
    _publish(training, Path(settings["output"]), settings["commit"])


class _Training:
    """Model, optimizer and history, restored from the last checkpoint if there is one."""

    def __init__(self, config: CodecExperiment) -> None:
        import dac
        import torch

        from models.codec.losses import ReconstructionLoss

        self.config = config
        torch.manual_seed(config.seed)
        settings = config.model.model_dump()
        self.model = dac.DAC(**settings, decoder_rates=settings["encoder_rates"][::-1])
        self.reconstruction = ReconstructionLoss(config.model.sample_rate)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, betas=(0.8, 0.99))
        sizes = {"train": config.corpus.train, "validation": config.corpus.validation}
        scenes = sample_scenes(sizes, config.corpus.seed)
        rate = config.model.sample_rate
        self.train, self.validation = ([render(scene, rate) for scene in scenes[split]] for split in sizes)
        self.history: list[dict[str, Any]] = []
        checkpoint = ray.train.get_checkpoint()
        if checkpoint:
            with checkpoint.as_directory() as directory:
                saved = torch.load(Path(directory) / "training.pt", weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.history = saved["history"]

    def run_epoch(self, epoch: int) -> dict[str, Any]:
        """Train `steps_per_epoch` steps and validate."""
        import torch

        config, start = self.config, time.monotonic()
        # Crops, seeding and quantizer dropout of an epoch depend on seed and epoch alone, so resuming repeats them.
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        first_of_decoder = config.epochs - config.decoder_epochs
        if config.projection_epochs <= epoch <= first_of_decoder:
            self._seed_codebooks(generator)
        for part in (self.model.encoder, self.model.quantizer):
            part.requires_grad_(epoch < first_of_decoder)
        self.model.train()
        total = 0.0
        for step in range(epoch * config.steps_per_epoch + 1, (epoch + 1) * config.steps_per_epoch + 1):
            total += self._step(self._crops(generator), step)
        return {
            "epoch": epoch + 1,
            "seconds": time.monotonic() - start,
            "train_reconstruction": total / config.steps_per_epoch,
            **validate(self.codec(), self.reconstruction, self.validation),
        }

    def _crops(self, generator: Any) -> Tensor:
        """Random pieces of random training scenes, [batch_size, 1, samples]."""
        import torch

        length = round(self.config.crop_s * self.config.model.sample_rate)
        pieces = []
        for scene in torch.randint(len(self.train), (self.config.batch_size,), generator=generator).tolist():
            waveform = torch.from_numpy(self.train[scene])
            start = int(torch.randint(max(1, len(waveform) - length), (), generator=generator))
            piece = waveform[start : start + length]
            pieces.append(torch.nn.functional.pad(piece, (0, length - len(piece))))
        return torch.stack(pieces)[:, None]

    def _step(self, batch: Tensor, step: int) -> float:
        """One optimizer step; returns the reconstruction loss."""
        import torch

        config = self.config
        warm = min(1.0, step / 20)
        progress = step / (config.epochs * config.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
        reconstruction, loss = self._losses(batch, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        if not torch.isfinite(norm):
            raise RuntimeError(f"step {step}: loss {float(loss):.4g}, gradient norm {float(norm)}; lower learning_rate")
        self.optimizer.step()
        return float(reconstruction)

    def _losses(self, batch: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Reconstruction loss, and the weighted sum of all losses."""
        import torch

        from models.codec.losses import project_only

        config, model = self.config, self.model
        if step <= config.projection_epochs * config.steps_per_epoch:
            books = int(torch.randint(1, config.model.n_codebooks + 1, ()))
            audio = model.decode(project_only(model.quantizer, model.encoder(batch), books))
            reconstruction = self.reconstruction(audio, batch)
            return reconstruction.detach(), config.reconstruction_weight * reconstruction
        output = model(batch)
        reconstruction = self.reconstruction(output["audio"], batch)
        loss = (
            config.reconstruction_weight * reconstruction
            + config.commitment_weight * output["vq/commitment_loss"]
            + config.codebook_weight * output["vq/codebook_loss"]
        )
        return reconstruction.detach(), loss

    def _seed_codebooks(self, generator: Any) -> None:
        import torch

        from models.codec.losses import seed_codebooks

        chosen = torch.randperm(len(self.train), generator=generator)[: self.config.seed_scenes].tolist()
        with torch.no_grad():
            waveforms = [torch.from_numpy(self.train[scene])[None, None] for scene in chosen]
            rate = self.model.sample_rate
            latents = [self.model.encoder(self.model.preprocess(waveform, rate)) for waveform in waveforms]
        seed_codebooks(self.model.quantizer, torch.cat(latents, dim=2), generator)

    def codec(self) -> DacCodec:
        """A copy of the model as it is now."""
        from models.codec.dac import DacCodec

        return DacCodec.from_dac(self.model, "dac-soundscapes-16khz")

    def report(self, values: dict[str, Any]) -> None:
        """Keep the epoch as a Ray Train checkpoint with all that resuming needs."""
        import torch

        self.history.append(values)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "history": self.history}
        with tempfile.TemporaryDirectory() as scratch:
            torch.save(state, Path(scratch) / "training.pt")
            checkpoint = ray.train.Checkpoint.from_directory(scratch)
            ray.train.report(values, checkpoint=checkpoint, checkpoint_dir_name=f"epoch_{values['epoch']:05d}")


def validate(codec: DacCodec, reconstruction: Any, waveforms: list[np.ndarray]) -> dict[str, Any]:
    """Reconstruction loss of whole clips, that of silence beside it, and the perplexity of each codebook.

    As long as the codebooks are not seeded, these are the values of random codebooks.
    """
    import torch

    from models.codec.losses import count_codes, perplexity

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


def probe(codec: Codec, scenes: int, seed: int) -> dict[str, float]:
    """Share of one-event scenes whose class is told from their bag of codes alone.

    A third of the scenes is tested on: other attributes of the classes, each in four renditions.
    """
    import numpy as np

    from models.codec.losses import bag_of_codes, probe_accuracy

    alone = [s for s in sample_scenes({"probe": scenes}, seed + 1)["probe"] if len(s.events) == 1]
    alone.sort(key=lambda scene: scene.events[0].kind)  # so that every third scene leaves scenes of all classes
    bags, labels = {}, {}
    for split, of_split in (("test", alone[::3]), ("train", [s for at, s in enumerate(alone) if at % 3])):
        renditions = [replace(scene, seed=scene.seed + number) for scene in of_split for number in range(4)]
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


def _publish(training: _Training, output: Path, commit_: str) -> None:
    """Write codec.safetensors, codec.json and metrics.json."""
    config, codec = training.config, training.codec()
    corpus = config.corpus
    metrics = {
        **training.history[-1],
        "class_from_codes": probe(codec, corpus.probe, corpus.seed) if corpus.probe else None,
        "steps": config.epochs * config.steps_per_epoch,
        "training_seconds": sum(values["seconds"] for values in training.history),
    }
    settings = config.model_dump(mode="json", exclude={"name", "storage_path"})
    codec.save(output / "codec.safetensors", training=settings, metrics=metrics, commit=commit_)
    write_json(output / "metrics.json", {**metrics, "history": training.history})


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(_short(item) for item in value) + "]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_command("train-codec")

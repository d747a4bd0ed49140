"""Define the schema of a codec's training, such as experiments/codec.yaml."""

from __future__ import annotations

from pydantic import Field, model_validator

from models.settings import Settings
from ray_jobs.experiment.config import NAME


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


class ScenesConfig(Settings):
    """Scenes of the built-in corpus, rendered into memory."""

    train: int = Field(default=400, gt=0, description="number of training scenes")
    validation: int = Field(default=32, gt=0, description="number of validation scenes")
    probe: int = Field(
        default=2400,
        ge=0,
        description="number of scenes to probe the codes with: the sounds of those with one event are classified by "
        "their codes; 0: none",
    )
    seed: int = Field(0, ge=0, description="seed of all scenes")


class CodecExperiment(Settings):
    """A file for `enclap train-codec`, such as `experiments/codec.yaml`."""

    name: str = Field(default="codec", pattern=rf"^{NAME}$", description="name of the run directory")
    storage_path: str = Field("runs", description="where run directories lie")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, crops and batches")
    model: DacSettings = DacSettings()
    corpus: ScenesConfig = ScenesConfig()
    epochs: int = Field(gt=0, description="number of epochs, the first and last ones below among them")
    steps_per_epoch: int = Field(default=50, gt=0, description="optimizer steps of an epoch")
    batch_size: int = Field(default=16, gt=1, description="crops per step")
    crop_s: float = Field(default=1.0, ge=0.1, description="length of a crop, in seconds")
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

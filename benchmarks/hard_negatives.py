"""Hard negatives and mixed pairs: the same small retriever with each setting and without, over several seeds.

    python benchmarks/hard_negatives.py runs/demo [--seeds 3] [--epochs 16] [--clips 1000] [--loss m-ltm]

Reads the features of a run, whose front end they have, and trains the demo's smallest retriever on its training split
for each seed: as it is, and with each setting in SETTINGS. All trainings of a seed start from the same weights and see
the same clips and captions in the same order. Prints, for each setting, the mean mAP@10 (text to audio) on the test
split after the last epoch, its difference from training without, seed by seed, the 95 % interval of their mean (paired
bootstrap over clips, the seeds of a clip together), and the seconds of an epoch. The interval is that of other test
clips, not of other seeds. The last line compares mAP@10 as JSON; nothing is claimed about it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from claims import claim, parser, show

from models.encoders.log_mel import pad_log_mels
from models.metrics.bootstrap import paired_bootstrap
from models.metrics.retrieval import flatten_captions, retrieval_values
from models.retriever.mixup import mix_pairs
from models.retriever.model import Retriever
from models.retriever.wrong_captions import wrong_captions
from models.settings import RetrieverConfig, RetrieverSettings
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.features.dataset import Features, read_features
from ray_jobs.training.batching import bucketed_batches

BATCH = 64
PLAIN = "without"
SETTINGS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "order": {"wrong_captions": {"kinds": ["order"]}},
    "event": {"wrong_captions": {"kinds": ["event"]}},
    "both": {"wrong_captions": {}},
    "both-0.1": {"wrong_captions": {"weight": 0.1}},
    "together": {"mixup_alpha": 0.4},
    "sequence": {"mixup_alpha": 0.4, "mixup_joins": "sequence"},
}


@dataclass(frozen=True)
class Measured:
    """A trained retriever's average precision of each test query, [Q], and the seconds of an epoch."""

    precision: np.ndarray
    epoch_s: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=16)
    arguments.add_argument("--clips", type=int, default=1000, help="to train on, at most")
    arguments.add_argument("--settings", nargs="+", default=list(SETTINGS)[1:], choices=list(SETTINGS)[1:])
    arguments.add_argument("--loss", default="m-ltm", choices=["m-ltm", "nt-xent", "triplet"])
    options = arguments.parse_args()
    torch.set_num_threads(2)
    base = smallest_retriever(options.run, options.loss)
    (corpus,) = (path for path in (options.run / "features").iterdir() if path.is_dir())
    train, test = (read_features([corpus / split]) for split in ("train", "test"))
    train = train.head(options.clips)
    measured: dict[str, list[Measured]] = {name: [] for name in (PLAIN, *options.settings)}
    for seed in range(options.seeds):
        for name, of_setting in measured.items():
            config = RetrieverConfig.model_validate(base | SETTINGS[name])
            of_setting.append(measure(config, train, test, options.epochs, seed))
            value = of_setting[-1].precision.mean()
            print(f"seed {seed}  {name:>8}  mAP@10 {value:.4f}  {of_setting[-1].epoch_s:.1f} s an epoch", flush=True)
    report(measured, flatten_captions(test.captions)[1])


def smallest_retriever(run: Path, loss: str) -> dict[str, Any]:
    """Return the settings of the retriever with the fewest epochs in a run, under a loss, and the run's front end."""
    recorded = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    experiment = Experiment.model_validate(recorded["experiment"])
    members = [one for one in experiment.members.values() if isinstance(one, RetrieverMember)]
    kept = min(members, key=lambda one: one.epochs).convert(RetrieverSettings).model_dump(exclude_unset=True)
    if loss != "m-ltm":
        kept = {key: value for key, value in kept.items() if key not in ("epsilon", "transported_mass", "metric")}
    return kept | {"loss": loss, "captions": "normalised", "log_mel": experiment.features.log_mel}


def measure(config: RetrieverConfig, train: Features, test: Features, epochs: int, seed: int) -> Measured:
    """Train on a split and return what the last epoch's weights are worth on another."""
    torch.manual_seed(seed)
    model = Retriever.create(config, [caption for clip in train.captions for caption in clip])
    model.audio_encoder.standardise(train.log_mels)
    start = time.perf_counter()
    fit(model, train, epochs, seed)
    epoch_s = (time.perf_counter() - start) / epochs
    model.eval()
    queries, target = flatten_captions(test.captions)
    similarity = model.similarity(model.text_embeddings(queries), model.audio_embeddings(test.log_mels))
    return Measured(retrieval_values(similarity, target).average_precision, epoch_s)


def fit(model: Retriever, train: Features, epochs: int, seed: int) -> None:
    """Train with AdamW, linear warm-up and one cosine; dropout and masks begin anew from the seed."""
    steps = epochs * (len(train) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps + 1, pct_start=0.1)
    torch.manual_seed(seed)
    model.train()
    for batch in batches(model.config, train, epochs, seed):
        model(*batch[:4], wrong=batch[4]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def batches(config: RetrieverConfig, train: Features, epochs: int, seed: int) -> Iterator[tuple[Any, ...]]:
    """Yield what `Retriever.forward` reads of every batch; settings draw from random numbers of their own."""
    rng, of_setting = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    for _ in range(epochs):
        order = rng.permutation(len(train))
        for places in bucketed_batches(np.asarray(train.durations_s)[order], BATCH, rng):
            rows = order[places]
            captions = [str(rng.choice(train.captions[row])) for row in rows]
            padded = pad_log_mels([train.log_mels[row] for row in rows])
            mixed = mix_pairs(*padded, captions, config.mixup_alpha, of_setting, config.mixup_joins)
            yield (
                *mixed,
                torch.from_numpy(rows),
                _wrong(config, mixed[2], [train.captions[row] for row in rows], of_setting),
            )


def _wrong(
    config: RetrieverConfig, captions: list[str], known: list[list[str]], rng: np.random.Generator
) -> list[list[str]] | None:
    wanted = config.wrong_captions
    return wrong_captions(captions, known, wanted.kinds, wanted.number, rng) if wanted else None


def report(measured: dict[str, list[Measured]], target: np.ndarray) -> None:
    """Print a row for each setting, and the last line."""
    plain = measured[PLAIN]
    mean = float(np.mean([one.precision.mean() for one in plain]))
    print(f"\n{PLAIN:>9}  mAP@10 {mean:.4f}  {np.mean([one.epoch_s for one in plain]):.1f} s an epoch")
    claims = {}
    for name, runs in measured.items():
        if name == PLAIN:
            continue
        pairs = list(zip(runs, plain, strict=True))
        found = paired_bootstrap(
            np.concatenate([one.precision for one, _ in pairs]),
            np.concatenate([other.precision for _, other in pairs]),
            groups=np.tile(target, len(pairs)),
        )
        by_seed = "  ".join(f"{float((one.precision - other.precision).mean()):+.4f}" for one, other in pairs)
        low, high = found.ci95
        value, seconds = np.mean([one.precision.mean() for one in runs]), np.mean([one.epoch_s for one in runs])
        print(
            f"{name:>9}  mAP@10 {value:.4f}  {found.delta:+.4f} [{low:+.4f}, {high:+.4f}]  by seed {by_seed}  "
            f"{seconds:.1f} s an epoch"
        )
        claims[f"{name}_map_at_10"] = claim(float(value), mean, None, "mAP@10")
    show(claims)


if __name__ == "__main__":
    main()

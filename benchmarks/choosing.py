"""Ways of choosing captions and of fusing retrievers, side by side, on clips that had no part in the choice.

    python benchmarks/choosing.py runs/demo [runs/demo-1 ...] [--resplits 5] [--chosen-only]

Reads what `enclap search` and `enclap combine` left in each run; no model runs. First what the runs themselves report:
the mean of every system over all test clips of all runs, and by how much the ensemble exceeds it; with --chosen-only
nothing else. Then two tables for captions, means of the metric that the first run was searched by:

- single systems: each captioner's beam search, the captioner's own candidates reranked (its beams among them, weights
  searched for it alone), and the ensemble that the run has chosen;
- each rule under each normalisation, and `auto`, which compares all of them. `nested` is the value on validation, each
  clip by weights that were searched anew without it; `test` that of the weights found on all of validation; `gain` is
  `test` minus the single system that is best on test, which is more than a run could know, with the 95 % interval of a
  paired bootstrap. Where a single system is better on validation, a rule takes it.

With --resplits the clips of validation and test are shuffled and divided anew that many times, and the means are over
all of them: the test of one run is too small to tell rules apart. CIDEr-D keeps the n-gram weights of a clip's split.

One table for retrieval, mAP@10 on validation alone, nested; `gain` is over the retriever that is best there.

The last line compares `auto` with the best single system. Runs on the same clips, such as those of several seeds, are
resampled together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from claims import Claim, Claims, claim, parser, show
from pyarrow.dataset import dataset

from models.ensemble.candidate_table import CandidateTable, ValuedTable
from models.metrics.bootstrap import paired_bootstrap
from models.selection.reranking_weights import NORMALISATIONS, RerankingOptions, search_reranking
from models.selection.retrieval_weights import NORMALISATIONS as OF_RETRIEVAL
from models.selection.retrieval_weights import RetrievalOptions, search_retrieval
from models.selection.rules import RULES
from ray_jobs.tuning.candidate_store import add_values
from ray_jobs.tuning.retrieval import split_target

AUTO: Literal["auto"] = "auto"
ENSEMBLE = "ensemble"  # as the run chose it


@dataclass(frozen=True)
class Outcome:
    """What a system is worth on the clips of one run."""

    nested: np.ndarray  # [validation clips]; empty where nothing was searched
    test: np.ndarray  # [test clips]


class Run:
    """A finished run's candidates, with the values of each by the metric that it was searched by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.experiment = self.read_experiment(folder)
        self.metric: str = self.experiment["search"]["objective"]
        candidates = pd.read_parquet(folder / "search" / "reranking" / "candidates.parquet")
        self.validation_ids = list(dict.fromkeys(candidates["clip_id"]))
        self.validation = CandidateTable.from_frame(candidates, self.validation_ids)
        references = captions_of(folder / "features" / self.experiment["target_corpus"] / "test")
        self.test_ids = list(references)
        frame = pd.read_parquet(folder / "ensemble" / "candidates.parquet")
        frame = add_values(frame, self.test_ids, list(references.values()), [self.metric])
        # the run's own choice as one more value: 1 for the candidate that it chose
        self.test = CandidateTable.from_frame(frame.rename(columns={"chosen": "value/chosen"}), self.test_ids)

    @staticmethod
    def read_experiment(folder: Path) -> dict[str, Any]:
        """Return the experiment that a run was made from."""
        read: dict[str, Any] = yaml.safe_load((folder / "experiment.yaml").read_text("utf-8"))["experiment"]
        return read

    @cached_property
    def captioners(self) -> list[str]:
        """Return everything that proposed captions, token ensembles too."""
        named = {name for clip in self.validation.table.captioners for both in clip for name in both.split("+")}
        return sorted({name.removesuffix("/beam") for name in named})

    def resplit(self, seed: int) -> Run:
        """Return the run with the clips of validation and test divided anew, into as many of each."""
        known, ids = concatenated(self.validation, self.test), [*self.validation_ids, *self.test_ids]
        order = np.random.default_rng(seed).permutation(len(ids))
        first, second = order[: len(self.validation_ids)], order[len(self.validation_ids) :]
        divided = copy(self)
        divided.validation, divided.validation_ids = of_rows(known, first), [ids[row] for row in first]
        divided.test, divided.test_ids = of_rows(known, second), [ids[row] for row in second]
        return divided


def captions_of(features: Path) -> dict[str, list[str]]:
    """Return the reference captions of a split's clips by clip_id, from features of this version or an earlier one."""
    files = sorted(features.glob("*.arrow")) or sorted(features.glob("*.parquet"))
    found = dataset(files, format=files[0].suffix[1:]).to_table(columns=["clip_id", "captions"])
    return dict(zip(*(found[name].to_pylist() for name in ("clip_id", "captions")), strict=True))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("run", nargs="+", type=Path)
    arguments.add_argument("--resplits", type=int, default=0, help="divide validation and test anew this many times")
    arguments.add_argument("--chosen-only", action="store_true", help="only what the runs themselves report")
    options = arguments.parse_args()
    claims = as_chosen(options.run)
    if options.chosen_only:
        show(claims)
        return
    claims |= captions([Run(folder) for folder in options.run], options.resplits)
    show(claims | retrieval(options.run))


def as_chosen(folders: Sequence[Path]) -> Claims:
    """Print the value of each system that the runs report, and return the ensemble's over the best of the others."""
    metric = Run.read_experiment(folders[0])["search"]["objective"]
    return {
        "ensemble": reported(folders, "caption_values.parquet", metric),
        "fusion": reported(folders, "retrieval_values.parquet", "map@10"),
    }


def reported(folders: Sequence[Path], table: str, metric: str) -> Claim:
    """Print and claim the same of one table of the runs; what belongs to a clip is resampled together."""
    frames = [pd.read_parquet(folder / "ensemble" / table) for folder in folders]
    of_runs = [
        frame.pivot_table(
            index=["clip_id", "caption"] if "rank" in frame else "clip_id", columns="system", values=metric
        )
        for frame in frames
    ]
    values = pd.concat(of_runs, join="inner")
    clips = values.index.get_level_values("clip_id").to_numpy()
    print(f"{metric} as the runs chose, {len(set(clips))} test clips, {len(folders)} runs")
    print(f"{'system':>34}    test    ensemble's gain")
    for name in values.columns:
        more = gain(values[ENSEMBLE].to_numpy(), values[name].to_numpy(), clips)
        print(f"{name:>34}  {values[name].mean():6.4f}  {more if name != ENSEMBLE else ''}")
    others = values.drop(columns=ENSEMBLE).mean()
    best_of_each = [run.drop(columns=ENSEMBLE).mean().max() for run in of_runs]
    gains = [f"{run[ENSEMBLE].mean() - best:+.4f}" for run, best in zip(of_runs, best_of_each, strict=True)]
    print(f"over the best single system of each run: {', '.join(gains)}")
    return claim(values[ENSEMBLE].mean(), others.max(), 1.0, metric)


# --- captions ------------------------------------------------------------------------------------------------------


def captions(runs: list[Run], resplits: int) -> Claims:
    """Print the two tables of captions, and return what `auto` claims."""
    tasks = [one for run in runs for one in ([run.resplit(seed) for seed in range(resplits)] or [run])]
    clips = np.concatenate([task.test_ids for task in tasks])
    singles = pooled([dict(single_systems(task, own=not resplits)) for task in tasks])
    print(
        f"\n{runs[0].metric}, {len(tasks)} x {len(tasks[0].test_ids)} test clips\n{'single system':>34}  nested    test"
    )
    for name, one in singles.items():
        print(f"{name:>34}  {mean(one.nested)}  {mean(one.test)}")
    best = max((name for name in singles if name != ENSEMBLE), key=lambda name: singles[name].test.mean())
    print(f"{'rule':>34}  nested    test    gain over {best}, 95 % interval")
    rules = pooled([dict(by_each_rule(task)) for task in tasks])
    for name, one in rules.items():
        print(f"{name:>34}  {mean(one.nested)}  {mean(one.test)}  {gain(one.test, singles[best].test, clips)}")
    return {"captions": claim(rules[AUTO].test.mean(), singles[best].test.mean(), 1.0, runs[0].metric)}


def single_systems(run: Run, own: bool) -> Iterator[tuple[str, Outcome]]:
    """Yield each captioner's beam search and its reranked candidates, and with `own` what the run itself chose."""
    options = options_of(run)
    for name in run.captioners:
        beam = run.test.table.of_captioner(f"{name}/beam")
        values = run.test.values[run.metric]
        yield f"{name}/beam", Outcome(np.empty(0), chosen(values, beam.mask.argmax(1)))
        yield f"{name}/rerank", searched(run, [name], options)
    if own:
        yield ENSEMBLE, Outcome(np.empty(0), chosen(run.test.values[run.metric], run.test.values["chosen"].argmax(1)))


def by_each_rule(run: Run) -> Iterator[tuple[str, Outcome]]:
    """Yield the ensemble of all captioners by each rule and normalisation, and by the comparison of all."""
    options = options_of(run)
    for normalisation in NORMALISATIONS:
        for rule in RULES:
            setting = replace(options, rule=rule, normalisation=normalisation)
            yield f"{rule}, {normalisation}", searched(run, run.captioners, setting)
    yield AUTO, searched(run, run.captioners, options)


def options_of(run: Run) -> RerankingOptions:
    """Return the options of the run's search, but for rule and normalisation."""
    fields = ("fluency_threshold", "folds", "encoder_score", "fallback")
    kept = {field: run.experiment["search"][field] for field in fields if field in run.experiment["search"]}
    return RerankingOptions(normalisation=AUTO, rule=AUTO, seed=run.experiment["seed"], **kept)


def searched(run: Run, captioners: list[str], options: RerankingOptions) -> Outcome:
    """Search on validation, and choose on test."""
    found = search_reranking(run.validation.table, run.validation.values[run.metric], [captioners], options)
    return Outcome(found.solution.held_out, chosen(run.test.values[run.metric], found.reranking.choose(run.test.table)))


def chosen(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the value [C] of one candidate of each clip."""
    of_clips: np.ndarray = values[np.arange(len(values)), columns]
    return of_clips


def pooled(outcomes: Sequence[dict[str, Outcome]]) -> dict[str, Outcome]:
    """Return the outcomes of all runs together, of the systems that every run has."""
    shared = [name for name in outcomes[0] if all(name in one for one in outcomes)]
    return {
        name: Outcome(
            np.concatenate([one[name].nested for one in outcomes]), np.concatenate([one[name].test for one in outcomes])
        )
        for name in shared
    }


def concatenated(first: ValuedTable, second: ValuedTable) -> ValuedTable:
    """Return one table of the clips of both, with what both have."""
    one, other = first.table, second.table
    width = max(one.mask.shape[1], other.mask.shape[1])

    def stacked(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (a, b)])

    table = CandidateTable(
        texts=[*one.texts, *other.texts],
        captioners=[*one.captioners, *other.captioners],
        tokens=[*one.tokens, *other.tokens],
        mask=stacked(one.mask, other.mask),
        scores={name: stacked(one.scores[name], other.scores[name]) for name in one.scores if name in other.scores},
        fluency_error=stacked(one.fluency_error, other.fluency_error),
    )
    shared = [name for name in first.values if name in second.values]
    return ValuedTable(table, {name: stacked(first.values[name], second.values[name]) for name in shared})


def of_rows(known: ValuedTable, rows: np.ndarray) -> ValuedTable:
    """Return the table of some clips."""
    table = known.table
    part = CandidateTable(
        texts=[table.texts[row] for row in rows],
        captioners=[table.captioners[row] for row in rows],
        tokens=[table.tokens[row] for row in rows],
        mask=table.mask[rows],
        scores={name: score[rows] for name, score in table.scores.items()},
        fluency_error=table.fluency_error[rows],
    )
    return ValuedTable(part, {name: value[rows] for name, value in known.values.items()})


# --- retrieval -----------------------------------------------------------------------------------------------------


def retrieval(folders: Sequence[Path]) -> Claims:
    """Print the table of retrieval, and return what `auto` claims; nothing where runs have one retriever alone."""
    found = [dict(fusions(folder)) for folder in folders]
    shared = [name for name in found[0] if all(name in one for one in found)]
    if AUTO not in shared:
        return {}
    values = {name: np.concatenate([one[name] for one in found]) for name in shared}
    clips = np.concatenate([np.arange(len(one[AUTO])) for one in found])  # the same ones in runs of several seeds
    singles = [name for name in shared if name in retrievers(folders[0])]
    best = max(singles, key=lambda name: values[name].mean())
    print(f"\nmap@10, validation\n{'fusion':>34}  nested  gain over {best}, 95 % interval")
    for name, one in values.items():
        print(f"{name:>34}  {mean(one)}  {gain(one, values[best], clips)}")
    return {"retrieval": claim(values[AUTO].mean(), values[best].mean(), 1.0, "map@10")}


def fusions(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the held-out values of clips by each retriever, by each rule and normalisation, and by comparing all."""
    with np.load(similarities_of(folder)) as file:
        similarities, target = split_target(dict(file))

    def held_out(names: Sequence[str], options: RetrievalOptions) -> np.ndarray:
        return search_retrieval({name: similarities[name] for name in names}, target, options).solution.held_out

    for name in similarities:
        yield name, held_out([name], RetrievalOptions())
    if len(similarities) > 1:
        for normalisation in OF_RETRIEVAL:
            for rule in RULES:
                options = RetrievalOptions(normalisation=normalisation, rule=rule)
                yield f"{rule}, {normalisation}", held_out(list(similarities), options)
        yield AUTO, held_out(list(similarities), RetrievalOptions(normalisation=AUTO, rule=AUTO))


def retrievers(folder: Path) -> list[str]:
    """Return whose similarities a run has."""
    with np.load(similarities_of(folder)) as file:
        return list(split_target(dict(file))[0])


def similarities_of(folder: Path) -> Path:
    """Return the file of a run's similarities."""
    return folder / "search" / "retrieval" / "similarities.npz"


# --- both ----------------------------------------------------------------------------------------------------------


def mean(values: np.ndarray) -> str:
    """Return the mean in six places; nothing of no values."""
    return f"{values.mean():6.4f}" if len(values) else " " * 6


def gain(values: np.ndarray, others: np.ndarray, clips: np.ndarray) -> str:
    """Return the mean difference and its interval."""
    found = paired_bootstrap(values, others, groups=clips)
    return f"{found.delta:+.4f} [{found.ci95[0]:+.4f}, {found.ci95[1]:+.4f}]"


if __name__ == "__main__":
    main()

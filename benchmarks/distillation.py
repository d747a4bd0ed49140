"""Students, the same members without teachers, and the ensembles of their teachers, on the test split.

    python benchmarks/distillation.py runs/distil [runs/distil-1 runs/distil-2] [--clips 200]

Reads runs of experiments with students, such as experiments/distil.yaml; training is all that they need. The control of
a student is the member of the same settings but for `distil_from`. A retriever's teachers are joined with equal weights
(each query's similarities standardised), and judged by AP@10 of text to audio. A captioner's teachers agree on the beam
of the highest mean log-likelihood, as in its training, and students and controls search with the same beam; captions
are judged by CIDEr-D. So the ensembles here are searched for nothing, and do not hold the students.

Prints for every student its mean value and those of control and teachers, over all runs together; the difference to
both, with a 95 % interval of the paired bootstrap over clips (a clip stays one in all runs of a corpus); and its share
of the teachers' parameters, of their seconds of training, and of their seconds a clip in this process, one after
another. The last line compares each student with its control; nothing is claimed about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml
from claims import Claim, claim, parser, show

from models.ensemble.retrieval_fusion import RetrievalFusion
from models.generation.agreed_captions import agreed_captions
from models.generation.proposals import ClipInputs
from models.metrics.bootstrap import paired_bootstrap
from models.metrics.captions import best_preprocessing, caption_values
from models.metrics.retrieval import flatten_captions, retrieval_values
from models.retriever.model import Retriever
from ray_jobs.experiment.config import Experiment
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.results.member import MemberMetrics
from ray_jobs.tuning.trained_members import TrainedMembers

STUDENT, CONTROL, TEACHERS = ROLES = ("student", "control", "teachers")


@dataclass
class Judged:
    """A system on the test clips of all runs so far."""

    values: list[np.ndarray] = field(default_factory=list)  # of each run, one a query or clip
    parameters: int = 0
    training_s: float = 0.0
    seconds_a_clip: float = 0.0

    @property
    def all(self) -> np.ndarray:
        return np.concatenate(self.values)


@dataclass
class Trial:
    """A student beside its control and its teachers."""

    metric: str
    systems: dict[str, Judged] = field(default_factory=lambda: {role: Judged() for role in ROLES})
    clips: list[str] = field(default_factory=list)  # of each value


@dataclass(frozen=True)
class Run:
    """A run and some of its test clips."""

    members: TrainedMembers
    clips: int

    @property
    def experiment(self) -> Experiment:
        return self.members.experiment

    @property
    def rows(self) -> slice:
        return slice(self.clips)

    def names(self, clips: list[int]) -> list[str]:
        """Return names of clips that are the same in other runs of the corpus."""
        return [f"{self.experiment.target_corpus}/{self.members.features.clip_ids[clip]}" for clip in clips]

    def needs(self, names: list[str]) -> list[str]:
        """Return these members, and the retrievers that they read."""
        read = [retriever for name in names for retriever in self.experiment.members[name].retrievers()]
        return list(dict.fromkeys([*names, *read]))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("runs", type=Path, nargs="+")
    arguments.add_argument("--clips", type=int, default=200, help="of the test split, at most")
    options = arguments.parse_args()
    torch.set_num_threads(2)
    trials: dict[str, Trial] = {}
    for path in options.runs:
        run = open_run(path, options.clips)
        for student in (name for name, member in run.experiment.members.items() if member.teachers()):
            judge(run, student, trials)
            print(f"{path}: {student}", flush=True)
    show({f"{student}_{trial.metric}": report(student, trial) for student, trial in trials.items()})


def open_run(path: Path, clips: int) -> Run:
    recorded = yaml.safe_load((path / "experiment.yaml").read_text(encoding="utf-8"))["experiment"]
    experiment = Experiment.model_validate({**recorded, "storage_path": str(path.parent), "name": path.name})
    members = TrainedMembers(experiment, "test")
    _ = members.retrievers, members.captioners  # loaded before anything is timed
    return Run(members, min(clips, len(members.features)))


def control_of(experiment: Experiment, student: str) -> str:
    """Return the member that is trained as a student but for its teachers."""

    def settings(name: str) -> dict[str, object]:
        return experiment.members[name].model_dump(exclude={"distil_from", "distillation", "resources"})

    same = [name for name in experiment.members if name != student and settings(name) == settings(student)]
    if not same:
        raise SystemExit(f"{experiment.name}: no member has the settings of {student} but for distil_from")
    return same[0]


def judge(run: Run, student: str, trials: dict[str, Trial]) -> None:
    """Add a run's values of a student, its control and its teachers."""
    member = run.experiment.members[student]
    control = control_of(run.experiment, student)
    sides = {STUDENT: [student], CONTROL: [control], TEACHERS: member.teachers()}
    is_retriever = isinstance(member, RetrieverMember)
    trial = trials.setdefault(student, Trial("map@10" if is_retriever else "cider_d"))
    for role, names in sides.items():
        start, judged = time.perf_counter(), trial.systems[role]
        finish = retrieve(run, names) if is_retriever else caption(run, names)
        judged.seconds_a_clip += (time.perf_counter() - start) / run.clips
        judged.values.append(finish())
        metrics = [MemberMetrics.read(run.members.directory.member(name)) for name in run.needs(names)]
        judged.parameters += sum(one.parameters for one in metrics)
        judged.training_s += sum(one.seconds for one in metrics)
    captions = run.members.features.captions[run.rows]
    described = flatten_captions(captions)[1].tolist() if is_retriever else list(range(run.clips))
    trial.clips += run.names(described)


def retrieve(run: Run, names: list[str]) -> Callable[[], np.ndarray]:
    """Embed clips and captions by retrievers, and return what computes the average precision of each caption."""
    queries, target = flatten_captions(run.members.features.captions[run.rows])
    similarities = {name: similarity(run, run.members.retrievers[name], queries) for name in names}
    joined = RetrievalFusion(weights=dict.fromkeys(names, 1.0), normalisation="z").join(similarities)
    return lambda: retrieval_values(joined, target).average_precision


def similarity(run: Run, retriever: Retriever, queries: list[str]) -> np.ndarray:
    clips = run.members.features.log_mels[run.rows]
    return retriever.similarity(retriever.text_embeddings(queries), retriever.audio_embeddings(clips))


def caption(run: Run, names: list[str]) -> Callable[[], np.ndarray]:
    """Caption clips by captioners together, and return what computes the CIDEr-D of each clip."""
    features = run.members.features
    log_mels, codes = features.log_mels[run.rows], features.codes[run.rows]
    read = run.needs(names)[len(names) :]
    audio = {name: run.members.retrievers[name].audio_embeddings(log_mels) for name in read}
    heard = {
        name: np.concatenate([audio[one] for one in run.experiment.members[name].retrievers()], 1) for name in names
    }
    captioners = {name: run.members.captioners[name] for name in names}
    agreed = agreed_captions(captioners, ClipInputs(codes, heard), run.experiment.beam)
    return partial(cider_d, [one.text for one in agreed], features.captions[run.rows])


def cider_d(texts: list[str], references: list[list[str]]) -> np.ndarray:
    scores = caption_values(texts, references, ["cider_d"], best_preprocessing())
    values: np.ndarray = scores.per_clip["cider_d"].to_numpy()
    return values


def report(student: str, trial: Trial) -> Claim:
    """Print a student's values, differences and shares, and return its comparison with the control."""
    systems, clips = trial.systems, np.array(trial.clips)
    means = {role: float(systems[role].all.mean()) for role in ROLES}
    print(f"\n{student}  {trial.metric}: " + "  ".join(f"{role} {means[role]:.4f}" for role in ROLES))
    for other in (CONTROL, TEACHERS):
        found = paired_bootstrap(systems[STUDENT].all, systems[other].all, groups=clips)
        each = [
            one.mean() - two.mean() for one, two in zip(systems[STUDENT].values, systems[other].values, strict=True)
        ]
        low, high = found.ci95
        print(
            f"  student - {other}: {found.delta:+.4f} [{low:+.4f}, {high:+.4f}]  by run: "
            + ", ".join(f"{one:+.4f}" for one in each)
        )
    for what in ("parameters", "training_s", "seconds_a_clip"):
        own, all_of_them = (getattr(systems[role], what) for role in (STUDENT, TEACHERS))
        print(f"  {what}: {own / len(systems[STUDENT].values):.4g}, {100 * own / all_of_them:.0f} % of the teachers'")
    return claim(means[STUDENT], means[CONTROL], None, trial.metric)


if __name__ == "__main__":
    main()

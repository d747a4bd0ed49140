"""The best epochs stay on disk, the others go."""

from pathlib import Path

from ray_jobs.training.kept_epochs import best_epochs, epochs_without_gain, keep_best


class Model:
    """Leaves a file."""

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "model.safetensors").touch()


def test_best_epochs_stay(tmp_path: Path) -> None:
    scores: list[float] = []
    left = []
    for score in (0.2, 0.1, 0.3, 0.3, 0.25):
        scores.append(score)
        keep_best(Model(), tmp_path / "epochs", scores, 2)
        left.append(sorted(int(path.name) for path in (tmp_path / "epochs").iterdir()))
    assert left == [[1], [1, 2], [1, 3], [3, 4], [3, 4]]
    assert best_epochs(scores, 3) == [3, 4, 5]


def test_epochs_without_gain() -> None:
    assert epochs_without_gain([]) == 0
    assert epochs_without_gain([0.1, 0.3, 0.2, 0.3]) == 2, "an equal value is no gain"
    assert epochs_without_gain([0.1, 0.2]) == 0

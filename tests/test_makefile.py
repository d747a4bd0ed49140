"""`make clean` and `make clean-demo`: what they remove, and that a user's data and runs are not among it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
USER = {
    "data/clotho/development/a.wav",
    "data/soundscapes-mine/train.csv",
    "data/__pycache__/a.pyc",
    "data/build/a.flac",
    "experiments/mine.yaml",
    "notes/site/index.html",
    "runs/demo-large/members/a/model.safetensors",
    "runs/mine/bundle/bundle.json",
    "runs/mine/site/index.html",
}
BUILT = {
    ".coverage",
    ".mypy_cache/3.11/a.json",
    ".pytest_cache/README.md",
    ".ruff_cache/a",
    ".venv/bin/python",
    ".venv/.installed",
    "build/lib/a.py",
    "dist/enclap_ensemble-0.2.0-py3-none-any.whl",
    "enclap_ensemble.egg-info/PKG-INFO",
    "models/codec/__pycache__/a.pyc",
    "site/index.html",
    "tests/__pycache__/a.pyc",
}
SOURCES = {f"{name}/__init__.py" for name in ("benchmarks", "corpora", "models", "ray_jobs", "tests", "tune_spaces")}


def demo() -> set[str]:
    """Return a file of every corpus that experiments/demo.yaml makes, and one of its run."""
    experiment = yaml.safe_load((ROOT / "experiments" / "demo.yaml").read_text(encoding="utf-8"))
    roots = [corpus["root"] for corpus in experiment["corpora"].values()]
    return {f"runs/{experiment['name']}/bundle/bundle.json", *(f"{root}/test/test-00000.flac" for root in roots)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Lay out a checkout's Makefile and sources, what the build and the demo made, and what a user keeps there."""
    checkout = tmp_path / "checkout"
    for name in USER | BUILT | SOURCES | demo():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    shutil.copy(ROOT / "Makefile", checkout)
    return checkout


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()} - {"Makefile"}


def make(checkout: Path, target: str) -> None:
    subprocess.run(["make", target], cwd=checkout, check=True, capture_output=True)


def test_clean_removes_what_the_build_made_and_nothing_else(checkout: Path) -> None:
    make(checkout, "clean")
    assert files(checkout) == USER | SOURCES | demo()
    make(checkout, "clean")  # again, with nothing left to remove


def test_clean_demo_removes_the_demo_and_nothing_else(checkout: Path) -> None:
    make(checkout, "clean-demo")
    assert files(checkout) == USER | SOURCES | BUILT
    make(checkout, "clean-demo")


def test_a_linked_environment_is_unlinked_and_linked_data_is_kept(checkout: Path, tmp_path: Path) -> None:
    for name in (".venv", "data", "runs"):
        (checkout / name).rename(tmp_path / name)
        (checkout / name).symlink_to(tmp_path / name)
    kept = files(tmp_path / "data") | files(tmp_path / "runs") | files(tmp_path / ".venv")
    make(checkout, "clean")
    assert not (checkout / ".venv").is_symlink()
    assert files(tmp_path / "data") | files(tmp_path / "runs") | files(tmp_path / ".venv") == kept

"""The inference library: `make wheel` builds it, and it captions, indexes and retrieves as the checkout does.

It is used offline, beside a user's own package `models`, and without what only training needs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from models import Ensemble, __version__
from models.submission import one_line

from .small_bundle import write_bundle, write_sounds

ROOT = Path(__file__).parents[1]
QUERY = "a dog barks"
# What the library must do without: the other rooms, and what training, searching and measuring need.
ABSENT = (
    "aac_metrics", "audiotools", "corpora", "dac", "matplotlib", "optuna", "peft", "ray", "ray_jobs",
    "sentence_transformers", "sklearn", "tune_spaces",
)  # fmt: skip
BLOCKER = f"""
import socket, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))  # importing them fails as if they were not installed
def refuse(*_):
    raise OSError("the network is not to be used")
socket.socket.connect = socket.getaddrinfo = refuse
"""
PROGRAM = f"""
import json, sys
import models
from enclap import Ensemble
bundle, *paths = sys.argv[1:]
ensemble = Ensemble.load(bundle)
captions = [caption.text for caption in ensemble.caption(paths)]
ensemble.index(paths)
others = [name for name in sys.modules if name.startswith("models.")]
found = [(one.path, one.similarity) for one in ensemble.retrieve({QUERY!r})]
print(json.dumps([captions, found, models.OWNER, others]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel in a copy of what it is made of."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("deploy", "models"):
        shutil.copytree(ROOT / name, checkout / name)
    environment = Path(sys.executable).parent
    command = ["make", "--assume-old", ".venv/.installed", f"BIN={environment}", "wheel"]
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".installed").touch()
    built = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert not built.returncode, built.stderr
    (found,) = (checkout / "dist").iterdir()
    return found


@dataclass(frozen=True)
class Use:
    """A bundle, sounds for it, and what the checkout answers."""

    bundle: Path
    sounds: list[Path]
    captions: list[str]
    retrieved: list[tuple[str, float]]


@pytest.fixture(scope="module")
def use(tmp_path_factory: pytest.TempPathFactory) -> Use:
    folder = tmp_path_factory.mktemp("use").resolve()
    bundle, sounds = write_bundle(folder / "bundle"), write_sounds(folder / "sounds")
    ensemble = Ensemble.load(bundle, device="cpu")
    captions = [caption.text for caption in ensemble.caption(sounds)]
    ensemble.index(sounds)
    return Use(bundle, sounds, captions, [(one.path, one.similarity) for one in ensemble.retrieve(QUERY)])


def assert_as_in_the_checkout(use: Use, python: Path | str, enclap: Path, folder: Path, *packages: Path) -> None:
    """Assert that command and API of the library answer as the checkout does, where a user has a package `models`.

    Args:
        python: the interpreter that runs the API; of its own environment.
        enclap: the command.
        folder: an empty one for the user's package.
        packages: folders that Python looks for packages in.
    """
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "__init__.py").write_text("OWNER = 'the user'\n")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    (folder / "program.py").write_text(PROGRAM)
    path = os.pathsep.join(map(str, (folder, *packages)))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "HOME": str(folder)}
    environment.pop("VIRTUAL_ENV", None)

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return done.stdout

    bundle, sounds = shutil.copytree(use.bundle, folder / "bundle"), use.sounds
    captions, retrieved, owner, others = json.loads(run(python, "program.py", bundle, *sounds))
    assert (owner, others) == ("the user", [])
    assert captions == use.captions
    assert [path for path, _ in retrieved] == [path for path, _ in use.retrieved]
    assert [value for _, value in retrieved] == pytest.approx([value for _, value in use.retrieved], abs=1e-4)
    assert run(enclap, "--version") == f"enclap-ensemble {__version__}\n"
    lines = [f"{path}\t{one_line(text)}\n" for path, text in zip(sounds, use.captions, strict=True)]
    assert run(enclap, "caption", bundle, *sounds) == "".join(lines)
    timed = run(enclap, "caption", bundle, sounds[0], "--window", "1", "--format", "srt")
    assert timed.splitlines()[:3] == ["1", "00:00:00,000 --> 00:00:01,000", one_line(use.captions[0])]
    run(enclap, "embed", bundle, *sounds, "--output", "embeddings.parquet")
    assert (folder / "embeddings.parquet").read_bytes().startswith(b"PAR1")
    run(enclap, "index", bundle, sounds[0].parent)
    found = run(enclap, "retrieve", bundle, QUERY)
    assert [line.split()[2] for line in found.splitlines()] == [path for path, _ in use.retrieved]


def test_the_library_without_what_training_needs(wheel: Path, use: Use, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    assert_as_in_the_checkout(use, sys.executable, site / "bin" / "enclap", tmp_path / "user", site)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_library_in_an_environment_of_its_own(wheel: Path, use: Use) -> None:
    """With what plain pip resolves: gigabytes to download, and to delete again."""
    with tempfile.TemporaryDirectory() as folder:
        environment, programs = Path(folder) / "venv", Path(folder) / "venv" / "bin"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [str(programs / "python"), "-m", "pip"]
        probe = [*pip, "download", "--no-deps", "--dest", folder, "lazy-loader"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("no package registry")
        installed = subprocess.run([*pip, "install", str(wheel)], capture_output=True, text=True, check=False)
        assert not installed.returncode, installed.stderr
        subprocess.run([*pip, "check"], check=True)
        frozen = subprocess.check_output([*pip, "freeze"], text=True)
        assert not {"ray", "optuna", "matplotlib", "descript-audio-codec"} & {*re.split("==|\n", frozen)}
        assert_as_in_the_checkout(use, programs / "python", programs / "enclap", Path(folder) / "user")


def test_the_wheel_holds_models_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        beside = {Path(name).name for name in archive.namelist() if ".dist-info/" in name}
    files = {path for path in (ROOT / "models").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert held == {f"enclap/{path.relative_to(ROOT / 'models')}" for path in files}
    assert "LICENSE" in beside
    assert wheel.name == f"enclap_ensemble-{__version__}-py3-none-any.whl"


def test_requirements_are_those_of_the_checkout() -> None:
    def dependencies(file: Path) -> set[str]:
        return {*tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]}

    library = dependencies(ROOT / "deploy" / "wheel" / "pyproject.toml")
    assert library < dependencies(ROOT / "pyproject.toml")

"""The faces of the sub-packages of models/: light to import, true to their stubs, and the same under another name."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import models

FOLDER = Path(models.__file__).parent
FACES = sorted(path.parent.name for path in FOLDER.glob("*/__init__.pyi"))  # models.settings is light as it is
HEAVY = {"torch", "transformers", "timm", "dac", "torchaudio", "faiss", "aac_metrics", "sentence_transformers"}
IMPORTS = """
import json, sys
from importlib import import_module
package, *faces = sys.argv[1:]
for face in faces:
    import_module(f"{package}.{face}")
print(json.dumps(sorted(sys.modules)))
"""
RESOLVES = """
import json, sys
from importlib import import_module
package, names = sys.argv[1], json.loads(sys.argv[2])
for face, wanted in names.items():
    module = import_module(f"{package}.{face}")
    assert sorted(module.__all__) == wanted, (face, module.__all__)
    for name in wanted:
        found = getattr(module, name)
        assert found.__module__.startswith(f"{package}."), found
base = import_module(f"{package}.codec.base")
for family in base.FAMILIES:
    assert base.codec_class(family).__module__.startswith(f"{package}.codec.")
codec = base.load_codec("dac-soundscapes-16khz", 2)
print(json.dumps({"codec": type(codec).__module__, "others": [name for name in sys.modules if name == "models"]}))
"""


def stub_names(face: str) -> list[str]:
    """`__all__` of a face's stub, and what it imports: the same names, or importers and type checkers differ."""
    tree = ast.parse((FOLDER / face / "__init__.pyi").read_text(encoding="utf-8"))
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    (listed,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert sorted(imported) == sorted(listed)
    return sorted(listed)


def run(program: str, *arguments: str, path: Path) -> str:
    """Run a program in a fresh interpreter that finds packages in `path` first."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def test_importing_every_face_loads_nothing_heavy() -> None:
    loaded = json.loads(run(IMPORTS, "models", *FACES, path=FOLDER.parent))
    assert {f"models.{face}" for face in FACES} <= set(loaded)
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("package", ["models", "enclap"])
def test_names_resolve_under_any_name_of_the_folder(package: str, tmp_path: Path) -> None:
    """The folder is shipped as `enclap`, without anything beside it: neither `models` nor the other rooms."""
    if package != "models":
        shutil.copytree(FOLDER, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    names = json.dumps({face: stub_names(face) for face in FACES})
    found = json.loads(run(RESOLVES, package, names, path=tmp_path if package != "models" else FOLDER.parent))
    assert found["codec"] == f"{package}.codec.dac"
    assert found["others"] == (["models"] if package == "models" else [])

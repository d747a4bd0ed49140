"""The door of the command line: its arguments."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from models.commands.running import run_app
from models.errors import InputError
from ray_jobs.cli import app
from tests.fuzz.door import Door
from tests.fuzz.mutations import ODD_TEXTS
from tests.small_bundle import write_bundle, write_sounds

ROOT = Path(__file__).parents[2]
USED, MISSING, UNUSABLE = 0, 1, 2  # exit codes; `doctor` says with 1 that something is missing
MOST = 3  # mutations of a command line
COMMANDS = {
    "caption": "caption bundle sounds --seed 3 --format csv --batch-size 2 --device cpu",
    "timeline": "caption bundle sounds --window 0.5 --hop 0.5 --output captions.jsonl --dtype fp32",
    "submission": "caption bundle more-sounds --submission submission.csv",
    "retrieve": "retrieve bundle thunder sounds --not rain --top-k 2 --name *.wav --min-duration 0.1 --format json",
    "queries": "retrieve bundle more-sounds --queries queries.csv --submission ranked.csv",
    "similar": "similar bundle sounds/sound-0.wav sounds --folder sounds --max-duration 9 --window 0.5 --hop 0.5",
    "index": "index bundle sounds --window 0.5 --remove-gone --no-captioners",
    "embed": "embed bundle sounds --output embeddings.parquet --window 0.5 --int8",
    "verify": "verify bundle --no-self-test",
    "doctor": "doctor smoke.yaml sampling.candidates=7 members.*.training.epochs=1 seed=4 --json",
}


class CommandLines(Door):
    """Command lines, an argument a line, run in a folder of their own."""

    name = "command-line"

    def write(self) -> list[Path]:
        self.given = self.folder / "given"
        write_bundle(self.given / "bundle")
        write_sounds(self.given / "sounds", 2)
        write_sounds(self.given / "more-sounds", 10)  # submissions have all of their top ten
        (self.given / "queries.csv").write_text("caption\na dog barks\n")
        shutil.copy(ROOT / "experiments/smoke.yaml", self.given)
        for name, line in COMMANDS.items():
            (self.folder / name).write_text("\n".join(line.split()))
        return [self.folder / name for name in COMMANDS]

    def open(self, path: Path) -> None:
        arguments = path.read_bytes().decode(errors="surrogateescape").split("\n")
        here, shown, printed = Path.cwd(), io.StringIO(), io.TextIOWrapper(io.BytesIO(), "utf-8")
        code: object = USED
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(shown):
            work = shutil.copytree(self.given, Path(scratch, "work"))
            os.chdir(work)
            try:
                with contextlib.redirect_stdout(printed):
                    run_app(app, arguments)
            except SystemExit as error:
                code = error.code
            finally:
                os.chdir(here)
            assert [file.name for file in Path(scratch).iterdir()] == ["work"], "something was written outside"
        message = shown.getvalue()
        assert "Traceback" not in message, message
        assert code in (USED, UNUSABLE) or (code == MISSING and path.name == "doctor"), f"exit code {code}: {message}"
        if code == UNUSABLE:
            raise InputError(message)

    def mutate(self, content: bytes, rng: np.random.Generator) -> bytes:
        """Return a command line with arguments that are odd, left out, said twice or in another place."""
        arguments = content.split(b"\n")
        for _ in range(rng.integers(1, MOST + 1)):
            at, to = (int(place) for place in rng.integers(len(arguments), size=2)) if len(arguments) else (0, 0)
            odd = ODD_TEXTS[rng.integers(len(ODD_TEXTS))]
            match rng.integers(6):
                case 0:
                    arguments[at:at] = [odd]
                case 1:
                    arguments[at : at + 1] = []
                case 2:
                    arguments[at : at + 1] = arguments[at : at + 1] * 2
                case 3:
                    arguments[to:to] = arguments[at : at + 1]
                case _:
                    arguments[at : at + 1] = [odd]
        return b"\n".join(arguments)

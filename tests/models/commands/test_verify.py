"""`enclap verify`: a whole bundle passes, and every kind of damage is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models.commands.verify import run
from models.errors import InputError
from tests.small_bundle import write_bundle

WEIGHTS = "members/retriever/model.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may damage."""
    copy = tmp_path / "bundle"
    for path in (path for path in exported.rglob("*") if path.is_file()):
        target = copy / path.relative_to(exported)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return copy


def test_a_whole_bundle_passes_with_its_index_and_a_strangers_file_is_told(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("index/index.json", "members/retriever/planted.bin", ".done.json"):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).touch()
    run(bundle)
    told = capsys.readouterr().err
    assert "members/retriever/planted.bin is not part of the export" in told
    assert "as they were exported; retriever" in told
    assert "index.json" not in told
    assert ".done.json" not in told


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_flip_a_bit, "changed"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "changed"),
        (Path.unlink, "missing"),
    ],
)
@pytest.mark.parametrize("name", [WEIGHTS, "bundle.json"])
def test_every_damaged_file_is_named(bundle: Path, damage: Callable[[Path], None], told: str, name: str) -> None:
    for damaged in (name, "codec/codec.safetensors"):
        damage(bundle / damaged)
    with pytest.raises(InputError) as raised:
        run(bundle)
    assert "2 of " in str(raised.value)
    assert f"{name}: {told}" in str(raised.value)
    assert f"codec/codec.safetensors: {told}" in str(raised.value)


@pytest.mark.parametrize("line", ["not a sum", f"{'0' * 64}  ../outside", f"{'0' * 64}  /etc/passwd", "\xff"])
def test_sums_that_are_none_are_refused_with_their_line(bundle: Path, line: str) -> None:
    sums = bundle / "SHA256SUMS"
    sums.write_text(f"{sums.read_text()}{line}\n", encoding="latin-1")
    with pytest.raises(InputError, match=rf"SHA256SUMS: line {len(sums.read_bytes().splitlines())}: found"):
        run(bundle)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SHA256SUMS: no such file; expected a bundle"):
        run(tmp_path)

"""`enclap verify`: a whole bundle passes, damage of every kind is named, and so are members that compute otherwise."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from models import Ensemble
from models.commands.verify import run
from models.ensemble.checksums import FILES, SUMS, write_sums
from models.ensemble.index import AudioIndex
from models.ensemble.manifest import INDEX, MANIFEST
from models.ensemble.self_test import CLIP, EXPECTED, SelfTestError, write_self_test
from models.errors import InputError
from models.files import CheckpointError, sha256_of
from models.retriever.model import Retriever
from tests.small_bundle import CAPTIONS, RATE, forbid, write_bundle

WEIGHTS = "members/retriever/model.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = write_bundle(tmp_path_factory.mktemp("exported") / "bundle")
    sound = 0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    write_self_test(bundle, sound.astype(np.float32), RATE, CAPTIONS)
    renew_sums(bundle)
    return bundle


def renew_sums(bundle: Path) -> None:
    write_sums(bundle, [str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()])


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
    for name in (
        "index/index.json",
        "members/retriever/planted.txt",
        ".done.json",
        ".cache/huggingface/README.md.lock",
    ):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).touch()
    run(bundle)
    told = capsys.readouterr().err
    assert "members/retriever/planted.txt is not part of the export" in told
    assert "as they were exported; retriever" in told
    assert "gives its own clip the scores that it had when it was exported" in told
    assert "and the same caption" in told
    for name in ("index.json", ".done.json", "README.md.lock"):
        assert name not in told


def test_a_damaged_index_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AudioIndex(["a.wav"], {"retriever": np.ones((1, 8), np.float32)}).save(bundle / INDEX, {})
    run(bundle, self_test=False)
    assert "the index, 0.0 MiB, is as it was written" in capsys.readouterr().err
    (rows,) = (bundle / INDEX).glob("*.rows")
    rows.write_bytes(bytes(rows.stat().st_size))
    with pytest.raises(CheckpointError, match=f"{rows.name}: damaged .*remove {bundle / INDEX}, and index the files"):
        run(bundle, self_test=False)


@pytest.mark.parametrize("name", ["members/retriever/pytorch_model.bin", "index/vectors.PKL", "extra.pt"])
def test_a_pickle_is_refused_by_name_also_where_the_list_has_it(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for use in (run, Ensemble.load):
        with pytest.raises(InputError, match=rf"found {name}, expected weights in safetensors alone"):
            use(bundle)
    if not name.startswith("index"):  # which is no part of the export
        renew_sums(bundle)
        with pytest.raises(InputError, match=rf"found {name}, expected weights in safetensors alone"):
            run(bundle)


def test_every_file_may_be_read_by_whom_the_umask_says(exported: Path) -> None:
    mode = (exported / MANIFEST).stat().st_mode
    assert not [path for path in exported.rglob("*") if path.is_file() and path.stat().st_mode != mode]


def test_a_file_that_must_not_be_read_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(bundle / WEIGHTS, monkeypatch)
    with pytest.raises(CheckpointError, match=rf"{WEIGHTS}: cannot be read \(Permission denied\)"):
        run(bundle)


def test_a_bundle_of_a_newer_format_is_refused_by_name(bundle: Path) -> None:
    content = json.loads((bundle / FILES).read_bytes())
    (bundle / FILES).write_text(json.dumps(content | {"format": 2, "signature": "..."}))
    for use in (run, Ensemble.load):
        with pytest.raises(InputError, match=r"MANIFEST\.json: format 2, this version reads format 1; .*made it"):
            use(bundle)


def test_what_is_cut_is_refused_before_a_member_is_loaded(bundle: Path) -> None:
    weights = bundle / WEIGHTS
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match=rf"{WEIGHTS}: {size - 8} bytes, expected {size}; copy or export"):
        Ensemble.load(bundle)


def test_members_that_compute_otherwise_than_when_exported_are_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = Retriever.similarity
    monkeypatch.setattr(Retriever, "similarity", lambda *rows: true(*rows) - 0.1)
    with pytest.raises(SelfTestError) as raised:
        run(bundle)
    message = str(raised.value)
    assert "\n  retriever: -" in message
    assert "captioner:" not in message
    assert "fluency:" not in message
    run(bundle, self_test=False)
    monkeypatch.setattr(Retriever, "similarity", true)
    soundfile.write(bundle / CLIP, np.random.default_rng(0).uniform(-0.5, 0.5, RATE), RATE)  # another sound
    renew_sums(bundle)
    with pytest.raises(SelfTestError, match="retriever"):
        run(bundle)


def test_another_caption_is_told_and_no_fault(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((bundle / EXPECTED).read_bytes())
    (bundle / EXPECTED).write_text(json.dumps(content | {"caption": "a caption drawn elsewhere"}))
    renew_sums(bundle)
    run(bundle)
    assert "not 'a caption drawn elsewhere'" in capsys.readouterr().err


def test_a_bundle_of_an_earlier_version_is_checked_and_used(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (CLIP, EXPECTED, FILES):
        (bundle / name).unlink()
    names = [str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()]
    (bundle / SUMS).write_text("".join(f"{sha256_of(bundle / name)}  {name}\n" for name in names))
    run(bundle)
    told = capsys.readouterr().err
    assert f"{len(names)} files" in told
    assert "has no self-test: it was exported by an earlier version" in told
    assert Ensemble.load(bundle).retrievers
    _flip_a_bit(bundle / WEIGHTS)
    with pytest.raises(InputError, match=f"{WEIGHTS}: changed"):
        run(bundle)


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
def test_earlier_sums_that_are_none_are_refused_with_their_line(bundle: Path, line: str) -> None:
    (bundle / FILES).unlink()
    (bundle / SUMS).write_text(f"{'0' * 64}  bundle.json\n{line}\n", encoding="latin-1")
    with pytest.raises(InputError, match="SHA256SUMS: line 2: found"):
        run(bundle)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../b", "", ".", "a//b", "C:\\a", "a\\..\\b", "\ud800"]
)
def test_a_list_that_names_a_file_outside_is_refused(bundle: Path, name: str) -> None:
    content = json.loads((bundle / FILES).read_bytes())
    content["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (bundle / FILES).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"MANIFEST\.json: found .*, expected names of files in the bundle"):
        run(bundle)


@pytest.mark.parametrize("left", [[], [WEIGHTS]])
def test_a_list_without_the_bundle_itself_is_refused(bundle: Path, left: list[str]) -> None:
    content = json.loads((bundle / FILES).read_bytes())
    (bundle / FILES).write_text(json.dumps(content | {"files": {name: content["files"][name] for name in left}}))
    with pytest.raises(InputError, match=r"MANIFEST\.json: bundle\.json is not listed, expected all files"):
        run(bundle)
    (bundle / FILES).unlink()
    (bundle / SUMS).write_text("".join(f"{sha256_of(bundle / name)}  {name}\n" for name in left))
    with pytest.raises(InputError, match=r"SHA256SUMS: bundle\.json is not listed, expected all files"):
        run(bundle)


@pytest.mark.parametrize("found", ["unknown", ["retriever", "unknown"]])
def test_a_captioner_that_reads_an_unknown_retriever_is_named(bundle: Path, found: object) -> None:
    content = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / MANIFEST).write_text(json.dumps(content | {"captioners": {"captioner": found}}))
    renew_sums(bundle)
    for use in (run, Ensemble.load):
        with pytest.raises(
            InputError, match=r"bundle\.json: captioners\.captioner: found unknown, expected retrievers"
        ):
            use(bundle)


@pytest.mark.parametrize(
    "entry", [{"sha256": "0" * 63, "bytes": 1}, {"bytes": 1}, {"sha256": "0" * 64, "bytes": -1}, 3]
)
def test_a_list_of_another_layout_is_refused_with_its_field(bundle: Path, entry: object) -> None:
    content = json.loads((bundle / FILES).read_bytes())
    content["files"]["NOTICE"] = entry
    (bundle / FILES).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"MANIFEST\.json: .*files\.NOTICE"):
        run(bundle)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MANIFEST\.json: no such file; expected a bundle"):
        run(tmp_path)

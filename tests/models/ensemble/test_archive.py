"""A bundle as one file: unpacked once and safely, and refused by name where it is not what export wrote."""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from models import Ensemble
from models.commands.cli import app
from models.commands.running import run_app
from models.commands.verify import run as verify
from models.ensemble.archive import unpacked, write_archive
from models.ensemble.checksums import FILES, check_sums
from models.errors import InputError
from models.files import GIT_LFS, CheckpointError
from tests.small_bundle import write_bundle, write_sounds

WEIGHTS = "members/retriever/model.safetensors"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("exported") / "bundle")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(bundle: Path, tmp_path: Path) -> Path:
    write_archive(bundle, tmp_path / "bundle.zip")
    return tmp_path / "bundle.zip"


def rewrite(
    archive: Path, change: Callable[[zipfile.ZipInfo, bytes], bytes | None], more: dict[str, bytes] | None = None
) -> None:
    """Write an archive again; files for which `change` returns None are left out."""
    with zipfile.ZipFile(archive) as file:
        entries = [(info, file.read(info)) for info in file.infolist()]
    with zipfile.ZipFile(archive, "w") as file:
        for info, content in entries:
            if (changed := change(info, content)) is not None:
                file.writestr(info, changed)
        for name, content in (more or {}).items():
            file.writestr(name, content)


def test_an_archive_is_used_as_its_directory_is(
    bundle: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds = write_sounds(tmp_path / "sounds")
    said = []
    for place in (bundle, archive):
        with pytest.raises(SystemExit) as done:
            run_app(app, ["retrieve", str(place), "a dog barks", *map(str, sounds)])
        assert not done.value.code
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "sound-0.wav" in said[0]
    verify(archive)
    told = capsys.readouterr().err
    assert "as they were exported; retriever, captioner, fluency" in told


def test_an_archive_is_unpacked_once_and_keeps_its_index(archive: Path, cache: Path, tmp_path: Path) -> None:
    ensemble = Ensemble.load(archive, device="cpu")
    weights = ensemble.directory / WEIGHTS
    assert cache in weights.parents
    before = weights.stat().st_mtime_ns
    ensemble.index(write_sounds(tmp_path / "sounds"))
    ensemble.save_index()
    moved = archive.rename(tmp_path / "moved.zip")
    again = Ensemble.load(moved, device="cpu")
    assert len(again.audio_index) == 3
    assert weights.stat().st_mtime_ns == before
    assert [path.suffix for path in (cache / "bundles").iterdir() if path.is_file()] == [".lock"]


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, archive: Path, tmp_path: Path) -> None:
    for path in bundle.rglob("*"):
        os.utime(path, (0, 10**9))
    (bundle / ".done.json").touch()
    write_archive(bundle, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    with zipfile.ZipFile(archive) as file:
        assert ".done.json" not in file.namelist()
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("use", [verify, Ensemble.load])
def test_damage_is_named_and_nothing_is_left(archive: Path, cache: Path, use: Callable[[Path], None]) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(GIT_LFS + b"v1\noid sha256:0\nsize 438\n")
    with pytest.raises(InputError, match=r"bundle\.zip: found a pointer of Git LFS, .*git lfs pull"):
        use(archive)
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"bundle\.zip: no whole zip archive"):
        use(archive)
    at = whole.index(b"__metadata__")  # in the header of some weights
    archive.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
    with pytest.raises(InputError, match=r"Bad CRC-32 for file '.*safetensors'"):
        use(archive)
    archive.write_bytes(whole)
    rewrite(archive, lambda info, content: content[:-1] + b"X" if info.filename == WEIGHTS else content)
    with pytest.raises(InputError, match=f"{WEIGHTS}: changed"):
        use(archive)
    archive.write_bytes(whole)
    rewrite(archive, lambda info, content: None if info.filename == WEIGHTS else content)
    with pytest.raises(InputError, match=f"{WEIGHTS}: missing"):
        use(archive)
    assert not [path for path in (cache / "bundles").glob("*") if path.suffix != ".lock"]


def test_a_change_is_found_although_the_archive_was_unpacked_before(archive: Path) -> None:
    unpacked(archive)
    rewrite(archive, lambda info, content: content[:-1] + b"X" if info.filename == WEIGHTS else content)
    with pytest.raises(InputError, match=f"{WEIGHTS}: changed"):
        verify(archive)


def _renamed_in_the_directory(content: bytearray, directory: int) -> None:
    content[directory + 9] |= 8  # says that names are UTF-8
    content[directory + 46] = 0xFF


def _put(at: int, found: bytes) -> Callable[[bytearray, int], None]:
    """Return a change of some bytes from the beginning of a zip's last entry in its directory."""

    def change(content: bytearray, directory: int) -> None:
        content[directory + at : directory + at + len(found)] = found

    return change


def _far_directory(content: bytearray, _: int) -> None:
    end = content.rindex(b"PK\x05\x06")
    content[end + 16 : end + 20] = b"\xff" * 4


def _headless(content: bytearray, _: int) -> None:
    del content[:500]


@pytest.mark.parametrize(
    "change", [_headless, _far_directory, _put(6, b"\x63"), _renamed_in_the_directory, _put(42, b"\xff\xff\xff\x7f")]
)
def test_what_is_damaged_as_a_zip_is_named(archive: Path, change: Callable[[bytearray, int], None]) -> None:
    content = bytearray(archive.read_bytes())
    change(content, content.rindex(b"PK\x01\x02"))
    archive.write_bytes(content)
    for use in (verify, unpacked):
        with pytest.raises(CheckpointError, match=r"bundle\.zip: no whole zip archive \(.+\); expected"):
            use(archive)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bundle.json/x", "'bundle.json' is a file and a folder"),
        ("MANIFEST.json/x", "'MANIFEST.json' is a file and a folder"),
        ("a" * 300, "'a+' is no name of a file in a bundle"),
        ("members/" + "a" * 210 + "/x", "'members/a+' is no name of a file in a bundle"),
    ],
)
def test_names_that_no_export_gives_are_refused(archive: Path, name: str, told: str) -> None:
    rewrite(archive, listing({name: b"x"}), {name: b"x"})
    for use in (verify, unpacked):
        with pytest.raises(CheckpointError, match=rf"bundle\.zip: {told}; expected"):
            use(archive)


def test_what_was_lost_or_cut_where_it_is_unpacked_is_unpacked_again(archive: Path, tmp_path: Path) -> None:
    ensemble = Ensemble.load(archive, device="cpu")
    ensemble.index(write_sounds(tmp_path / "sounds"))
    ensemble.save_index()
    directory = ensemble.directory
    (directory / "bundle.json").unlink()
    (directory / WEIGHTS).write_bytes(b"cut")
    (directory / FILES).write_text("{}")
    shutil.rmtree(directory / "codec")
    assert len(Ensemble.load(archive, device="cpu").audio_index) == 3, "the index stays"
    assert not check_sums(directory).changed + check_sums(directory).missing
    shutil.rmtree(directory)
    directory.mkdir()
    assert unpacked(archive) == directory
    assert not check_sums(directory).changed + check_sums(directory).missing


def test_a_change_where_it_is_unpacked_is_found_by_verify_and_mended_by_removal(archive: Path) -> None:
    weights = unpacked(archive) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"X")
    with pytest.raises(InputError, match=rf"files are not .*unpacked again\n  {WEIGHTS}: changed"):
        verify(archive)
    weights.unlink()
    verify(archive)


def test_a_damaged_archive_mends_nothing(archive: Path) -> None:
    weights = unpacked(archive) / WEIGHTS
    weights.unlink()
    rewrite(archive, lambda info, content: content[:-1] + b"X" if info.filename == WEIGHTS else content)
    with pytest.raises(InputError, match=rf"bundle\.zip: 1 of .*\n  {WEIGHTS}: changed"):
        unpacked(archive)
    assert not weights.exists()


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null", "file"])
def test_a_cache_that_cannot_be_written_is_named(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / place  # an absolute place is itself
    monkeypatch.setenv("ENCLAP_CACHE", str(cache))
    with pytest.raises(InputError, match=rf"{cache}/bundles/\w+: the archive cannot be unpacked there .*ENCLAP_CACHE"):
        unpacked(archive)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_cache_is_named_and_one_that_has_the_bundle_is_used(
    archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    failing = (shutil, "copyfileobj") if number == errno.ENOSPC else (os, "open")  # which FileLock calls
    with monkeypatch.context() as broken:
        broken.setattr(*failing, fail)
        with pytest.raises(InputError, match=rf"{cache}/bundles/\w+: .*\({os.strerror(number)}\).*ENCLAP_CACHE"):
            unpacked(archive)
    assert not [path for path in (cache / "bundles").glob("*") if path.suffix != ".lock"]
    directory = unpacked(archive)
    monkeypatch.setattr(*failing, fail)
    assert unpacked(archive) == directory


def listing(more: dict[str, bytes]) -> Callable[[zipfile.ZipInfo, bytes], bytes]:
    """Return a change that adds files to MANIFEST.json with their right sums."""

    def change(info: zipfile.ZipInfo, content: bytes) -> bytes:
        if info.filename != FILES:
            return content
        files = json.loads(content)
        for name, added in more.items():
            files["files"][name] = {"sha256": hashlib.sha256(added).hexdigest(), "bytes": len(added)}
        return json.dumps(files).encode()

    return change


@pytest.mark.parametrize(
    "name", ["../../outside", "/tmp/outside-of-a-bundle", "members/../../outside", "a\\..\\outside"]
)
def test_nothing_is_written_outside(archive: Path, cache: Path, tmp_path: Path, name: str) -> None:
    rewrite(archive, lambda _, content: content, {name: b"escaped"})
    for use in (verify, unpacked):
        with pytest.raises(InputError, match=r"bundle\.zip: '.*outside.*' is no name of a file in a bundle"):
            use(archive)
    rewrite(archive, lambda info, content: None if info.filename == name else content)
    rewrite(archive, listing({name: b"escaped"}))
    for use in (verify, unpacked):
        with pytest.raises(InputError, match="expected names of files in the bundle"):
            use(archive)
    assert not Path("/tmp/outside-of-a-bundle").exists()
    assert not list(tmp_path.rglob("*outside*"))


def test_links_compressed_files_and_twins_are_refused(archive: Path) -> None:
    whole = archive.read_bytes()
    link = zipfile.ZipInfo("members/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    small = zipfile.ZipInfo("small")
    small.compress_type = zipfile.ZIP_DEFLATED
    twin = zipfile.ZipInfo("bundle.json")
    for info, told in ((link, "no plain file"), (small, "compressed"), (twin, "there twice")):
        archive.write_bytes(whole)
        with zipfile.ZipFile(archive, "a") as file, pytest.warns() if info is twin else io.BytesIO():
            file.writestr(info, b"/etc/passwd")
        for use in (verify, unpacked):
            with pytest.raises(InputError, match=rf"'{info.filename}' is .*{told}"):
                use(archive)


def test_files_that_overlap_are_refused(archive: Path) -> None:
    content = bytes(10_000)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("b", content)
    inner = archive.read_bytes()[: 30 + 1 + len(content)]  # its header, its name and itself
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(FILES, b"{}")
        file.writestr("a", inner)
        hidden = zipfile.ZipInfo("b")
        hidden.header_offset, hidden.CRC = file.getinfo("a").header_offset + 31, zlib.crc32(content)
        hidden.file_size = hidden.compress_size = len(content)
        file.filelist.append(hidden)
    with pytest.raises(InputError, match="its files overlap"):
        unpacked(archive)


def test_pickles_newer_formats_and_other_zips_are_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    pickle = {"members/retriever/model.bin": b"cos\nsystem\n."}
    rewrite(archive, listing(pickle), pickle)
    for use in (verify, unpacked):
        with pytest.raises(InputError, match=r"found members/retriever/model\.bin, expected weights in safetensors"):
            use(archive)
    archive.write_bytes(whole)
    rewrite(archive, lambda info, content: b'{"format": 9}' if info.filename == FILES else content)
    with pytest.raises(InputError, match=r"MANIFEST\.json: format 9, this version reads format 1"):
        unpacked(archive)
    rewrite(archive, lambda info, content: content if info.filename != FILES else None)
    with pytest.raises(InputError, match=r"bundle\.zip: found no MANIFEST\.json at the top of the archive"):
        unpacked(archive)
    (tmp_path / "notes.txt").write_text("not a zip")
    with pytest.raises(InputError, match="expected a directory, or a zip archive"):
        Ensemble.load(tmp_path / "notes.txt")

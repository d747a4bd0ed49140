"""Keep a run in an object store: s3://, gs:// or any other that pyarrow.fs opens by URI.

Jobs read and write plain files, so every node has a working copy of such a run, in a directory named after the URI:
`$ENCLAP_CACHE/runs/<quoted storage_path>/<experiment>`. A path in it therefore names its place in the store, whichever
node it comes from. A job pushes what it has made, the marker last (directory.mark_done), and pulls what it reads as
files. For a path outside of working copies all functions work on the path itself, and push and pull do nothing.

Hidden files (locks, files being written) stay on their node. Ray Train and Ray Tune write their checkpoints into the
store themselves, through the same file system (`for_ray`).
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pyarrow as pa
from filelock import FileLock
from pyarrow import fs

from models.files import atomic_write
from ray_jobs.experiment.config import ConfigError

TRANSFERS = 8  # files transferred at the same time
CHUNK_BYTES = 16 << 20  # of a file, in a request
ATTEMPTS = 12  # of a request to S3, up to 20 s apart: two minutes without a network are waited for
QUOTED = re.compile(r"[a-z][a-z0-9+.-]*%3A%2F%2F")
SECRET = re.compile(r"key|secret|token|password|signature|credential", re.IGNORECASE)
NAME_BYTES = 255  # of a directory's name


class _PatientS3(fs.S3FileSystem):
    """S3 with `ATTEMPTS`, also where it is unpickled: pyarrow itself does not pickle the strategy."""

    def __reduce__(self) -> tuple[Any, ...]:
        _, (options,) = super().__reduce__()
        return _patient_s3, (options,)


def _patient_s3(options: dict[str, Any]) -> _PatientS3:
    return _PatientS3(**options, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS))


# --- where a run is ------------------------------------------------------------------------------------------------


def working_copy(storage_path: str, name: str) -> Path:
    """Return where a run's files are on this node: in `storage_path` itself if that is a directory.

    Raises:
        ConfigError: if pyarrow knows no store for the URI, or the URI holds a secret or is too long.
    """
    if "://" not in storage_path:
        return Path(storage_path) / name
    _refuse_secrets(storage_path)
    quoted = quote(storage_path.rstrip("/"), safe="")
    if len(quoted) > NAME_BYTES:
        raise ConfigError(f"storage_path: found {len(quoted)} characters when quoted, expected at most {NAME_BYTES}")
    try:
        open_uri(storage_path)
    except ConfigError as error:
        raise ConfigError(f"storage_path: {error}") from error
    return _cache() / quoted / name


def locate(run: str) -> tuple[str, str]:
    """Return `storage_path` and name of a run, given its directory or URI."""
    if "://" not in run:
        return str(Path(run).resolve().parent), Path(run).resolve().name
    base, question_mark, query = run.partition("?")
    storage_path, _, name = base.rstrip("/").rpartition("/")
    return f"{storage_path}{question_mark}{query}", name


def inside(place: str, *names: str) -> str:
    """Return the path or URI of a directory in another."""
    base, question_mark, query = place.partition("?") if "://" in place else (place, "", "")
    return f"{'/'.join([base.rstrip('/'), *names])}{question_mark}{query}"


def local_path(place: str) -> Path:
    """Return where a directory's files are on this node, given its path or URI."""
    return working_copy(*locate(place))


def uri(path: Path) -> str:
    """Return where a file is kept, for messages: its URI, or the path itself outside of stores."""
    parts = _parts(path)
    if parts is None:
        return str(path)
    return inside(*parts)


def here(path: Path) -> Path:
    """Return the path in this node's working copy, given that of any node."""
    parts = _parts(path)
    return path if parts is None else _cache() / quote(parts[0], safe="") / parts[1]


def for_ray(path: Path) -> dict[str, Any]:
    """Return `storage_path` and `storage_filesystem` of Ray's RunConfig for a directory."""
    at = _remote(path)
    return {"storage_path": str(path)} if at is None else {"storage_path": at[1], "storage_filesystem": at[0]}


def is_remote(path: Path) -> bool:
    """Return whether the path is in a working copy."""
    return _parts(path) is not None


@lru_cache
def open_uri(storage_path: str) -> tuple[fs.FileSystem, str]:
    """Return a URI's file system, and the path in it.

    Raises:
        ConfigError: if pyarrow knows no store for the URI, or it names no bucket.
    """
    try:
        store, base = fs.FileSystem.from_uri(storage_path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"found {storage_path!r}, expected a directory or a URI of a store: {error}") from error
    if not base:
        raise ConfigError(f"found {storage_path!r}, expected a bucket in it, as in s3://bucket/runs")
    if isinstance(store, fs.S3FileSystem):
        store = _patient_s3(store.__reduce__()[1][0])
    return store, base


# --- reading -------------------------------------------------------------------------------------------------------


def exists(path: Path) -> bool:
    """Return whether a file or directory is in the store."""
    at = _remote(path)
    return path.exists() if at is None else at[0].get_file_info(at[1]).type != fs.FileType.NotFound


def listing(directory: Path, pattern: str) -> list[Path]:
    """Return the files of a directory whose names match a pattern, sorted; none if there is no such directory."""
    at = _remote(directory)
    if at is None:
        return sorted(directory.glob(pattern))
    return sorted(directory / inner for inner in _files(*at, recursive=False) if fnmatch(inner, pattern))


def folders(directory: Path, pattern: str) -> list[Path]:
    """Return the folders of a directory whose names match a pattern, sorted; none if there is no such directory."""
    at = _remote(directory)
    if at is None:
        return sorted(path for path in directory.glob(pattern) if path.is_dir())
    found = at[0].get_file_info(fs.FileSelector(at[1], allow_not_found=True))
    names = [PurePosixPath(info.path).name for info in found if info.type == fs.FileType.Directory]
    return sorted(directory / name for name in names if fnmatch(name, pattern))


def sizes(directory: Path) -> dict[str, int]:
    """Return the bytes of each folder of a directory, the largest first; a file with several names counts each time."""
    at = _remote(directory)
    files: Iterable[tuple[str, int]]
    if at is None:
        paths = (path for path in directory.rglob("*") if path.is_file())
        files = ((str(path.relative_to(directory)), path.stat().st_size) for path in paths)
    else:
        found = at[0].get_file_info(fs.FileSelector(at[1], allow_not_found=True, recursive=True))
        base = PurePosixPath(at[1])
        files = ((str(PurePosixPath(one.path).relative_to(base)), one.size) for one in found if one.is_file)
    total = Counter[str]()
    for name, size in files:
        folder, slash, _ = name.partition("/")
        total[folder] += size if slash else 0
    return {folder: size for folder, size in total.most_common() if size}


def source(path: Path) -> Any:
    """Return what pyarrow and pandas can read without a local copy: the path, or an open file of the store.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    at = _remote(path)
    return path if at is None else at[0].open_input_file(at[1])


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    at = _remote(path)
    if at is None:
        return path.read_bytes()
    with at[0].open_input_stream(at[1]) as file:
        content: bytes = file.read()
    return content


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        UnicodeDecodeError: if it is not UTF-8.
    """
    return read_bytes(path).decode()


def written_at(path: Path) -> float | None:
    """Return when a file was last written, in seconds since 1970 by the store's clock; None if there is none."""
    at = _remote(path)
    if at is None:
        return path.stat().st_mtime if path.is_file() else None
    info = at[0].get_file_info(at[1])
    return info.mtime_ns / 1e9 if info.is_file else None


# --- from and to the store -----------------------------------------------------------------------------------------


def pull(path: Path) -> Path:
    """Fetch a directory or file as it is in the store now, and return its path on this node.

    Files that are here already, with the store's size and time, are not fetched again.

    Raises:
        FileNotFoundError: if there is no such file or directory.
    """
    at = _remote(path)
    if at is None:
        return path
    local = here(path)
    local.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(local.with_name(f".{local.name}.pull.lock")):  # workers of one node pull the same files
        found = _files(*at)
        if not found:
            raise FileNotFoundError(f"{uri(path)}: no such file or directory")
        if local.is_dir():
            for stale in set(_visible(local)) - set(found):
                (local / stale).unlink()
        _each(lambda inner: _fetch(at[0], found[inner], local / inner), found)
    return local


def push(path: Path) -> None:
    """Copy a file, or all of a directory but its hidden files, into the store, over what is there."""
    at = _remote(path)
    if at is None:
        return
    local = here(path)
    found = _files(*at) if local.is_dir() else {}
    inners = _visible(local) if local.is_dir() else ["."]
    changed = [inner for inner in inners if inner not in found or not _is_same(local / inner, found[inner])]
    if not isinstance(at[0], fs.S3FileSystem):  # which has no directories
        for folder in {str(PurePosixPath(at[1], inner).parent) for inner in changed}:
            at[0].create_dir(folder)
    _each(lambda inner: _send(at[0], local / inner, str(PurePosixPath(at[1], inner))), changed)


def remove(path: Path) -> None:
    """Remove a file or directory, here and in the store, if it exists."""
    local, at = here(path), _remote(path)
    if local.is_dir():
        shutil.rmtree(local, ignore_errors=True)
    else:
        local.unlink(missing_ok=True)
    if at is not None:
        kind = at[0].get_file_info(at[1]).type
        if kind == fs.FileType.Directory:
            at[0].delete_dir(at[1])
        elif kind == fs.FileType.File:
            at[0].delete_file(at[1])


def _fetch(store: fs.FileSystem, info: fs.FileInfo, local: Path) -> None:
    if local.is_file() and _is_same(local, info):
        return
    with atomic_write(local) as partial:  # a process that maps the old file keeps it
        fs.copy_files(
            info.path,
            str(partial),
            source_filesystem=store,
            destination_filesystem=fs.LocalFileSystem(),
            chunk_size=CHUNK_BYTES,
            use_threads=False,
        )
        _stamp(partial, info)


def _send(store: fs.FileSystem, local: Path, remote: str) -> None:
    # Own threads: those of pyarrow wait for each other in uploads to S3 (apache/arrow#32372).
    fs.copy_files(
        str(local),
        remote,
        source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=store,
        chunk_size=CHUNK_BYTES,
        use_threads=False,
    )
    _stamp(local, store.get_file_info(remote))


def _each(transfer: Any, inners: Iterable[str]) -> None:
    with ThreadPoolExecutor(TRANSFERS) as threads:
        list(threads.map(transfer, inners))


def _is_same(local: Path, info: fs.FileInfo) -> bool:
    """Return whether a file is unchanged since it was fetched or sent: it then has the store's size and time."""
    own = local.stat()
    return (own.st_size, own.st_mtime_ns) == (info.size, _whole_seconds(info))


def _stamp(local: Path, info: fs.FileInfo) -> None:
    os.utime(local, ns=(_whole_seconds(info),) * 2)


def _whole_seconds(info: fs.FileInfo) -> int:
    """Return the time in nanoseconds, cut to seconds: S3 gives milliseconds in some answers and not in others."""
    return info.mtime_ns // 10**9 * 10**9


def _files(store: fs.FileSystem, remote: str, recursive: bool = True) -> dict[str, fs.FileInfo]:
    """Return the files in directory `remote`, by their paths in it; by `.` if it is a file itself."""
    single = store.get_file_info(remote)
    if single.is_file:
        return {".": single}
    found = store.get_file_info(fs.FileSelector(remote, allow_not_found=True, recursive=recursive))
    base = PurePosixPath(remote.lstrip("/"))
    inner = [(PurePosixPath(info.path.lstrip("/")).relative_to(base), info) for info in found if info.is_file]
    return {str(path): info for path, info in inner if not _is_hidden(path)}


def _visible(local: Path) -> list[str]:
    files = (path.relative_to(local) for path in local.rglob("*") if path.is_file())
    return [str(path) for path in files if not _is_hidden(path)]


def _is_hidden(path: Path | PurePosixPath) -> bool:
    return any(part.startswith(".") for part in path.parts)


# --- paths and URIs ------------------------------------------------------------------------------------------------


def _cache() -> Path:
    return Path(os.environ.get("ENCLAP_CACHE") or Path.home() / ".cache" / "enclap").resolve() / "runs"


def _parts(path: Path) -> tuple[str, str] | None:
    """Return the storage_path and the path in it; None for a path outside of working copies."""
    for at, part in enumerate(path.parts):
        if QUOTED.match(part):
            return unquote(part), str(PurePosixPath(*path.parts[at + 1 :]))
    return None


def _remote(path: Path) -> tuple[fs.FileSystem, str] | None:
    """Return the store's file system, and the path in it; None for a path outside of working copies."""
    parts = _parts(path)
    if parts is None:
        return None
    store, base = open_uri(parts[0])
    return store, str(PurePosixPath(base, parts[1]))


def _refuse_secrets(storage_path: str) -> None:
    """Refuse a URI with a secret: it would end up in experiment.yaml and in logs."""
    url = urlsplit(storage_path)
    named = [key for key, _ in parse_qsl(url.query, keep_blank_values=True) if SECRET.search(key)]
    if url.password is not None or (url.scheme == "s3" and url.username):
        named.append("user or password before the @")
    if named:
        raise ConfigError(
            f"storage_path: the {url.scheme}:// URI holds a secret ({', '.join(named)}), expected none; credentials "
            "come from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS) or a role"
        )

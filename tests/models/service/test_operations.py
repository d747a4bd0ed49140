"""What the operations of a service answer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.commands.index import run as index_command
from models.ensemble import Ensemble
from models.service.engine import Engine, Sound
from models.service.requests import CaptionWindows, answer_all
from models.service.server import local_app
from models.service.settings import ServiceSettings

from .conftest import MakeClient

WAV = {"Content-Type": "audio/wav"}


@pytest.fixture
def indexed(bundle: Path, sounds: list[Path], tmp_path: Path) -> Path:
    """A bundle whose index the command made."""
    copied = shutil.copytree(bundle, tmp_path / "bundle")
    index_command(copied, sounds)
    return copied


def service_of(client: MakeClient, bundle: Path, **settings: Any) -> Any:
    return client(local_app(Ensemble.load(bundle, "cpu"), ServiceSettings(**settings)))


def test_a_caption_has_its_candidates_and_scores(client: MakeClient, ensemble: Ensemble, sounds: list[Path]) -> None:
    (alone,) = ensemble.caption([sounds[0]])
    content, service = sounds[0].read_bytes(), client()
    raw = service.post("/v1/caption", content=content, headers=WAV).json()
    form = service.post("/v1/caption", files={"file": ("rain.wav", content, "audio/wav")}).json()
    assert raw == form
    assert raw["caption"]["text"] == alone.text
    assert raw["caption"]["score"] == pytest.approx(alone.score, abs=1e-5)
    assert [one["text"] for one in raw["caption"]["candidates"]] == [one.text for one in alone.candidates]
    assert {*raw["caption"]["candidates"][0]["scores"]} == {*alone.candidates[0].scores}
    assert raw["duration_s"] == raw["heard_s"] == pytest.approx(1.0)


def test_a_seed_is_that_of_the_sampling(client: MakeClient, ensemble: Ensemble, sounds: list[Path]) -> None:
    (expected,) = ensemble.caption([sounds[1]], seed=7)
    answer = client().post("/v1/caption?seed=7", content=sounds[1].read_bytes(), headers=WAV).json()
    assert [one["text"] for one in answer["caption"]["candidates"]] == [one.text for one in expected.candidates]


def test_captions_of_one_batch_are_those_of_each_sound_alone(
    client: MakeClient, ensemble: Ensemble, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound that cannot be read, among them, costs the others nothing."""
    alone = [caption.text for caption in ensemble.caption(sounds)]
    contents = [path.read_bytes() for path in sounds]
    monkeypatch.setattr(Sound, "checked", lambda sound, _: sound)  # so that the bad one comes this far
    service = client(batch_wait_s=0.5)
    with ThreadPoolExecutor() as pool:
        answers = list(
            pool.map(lambda one: service.post("/v1/caption", content=one, headers=WAV), [*contents, b"no sound"])
        )
    assert [one.json()["caption"]["text"] for one in answers[:-1]] == alone
    assert answers[-1].status_code == 422
    assert answers[-1].json()["code"] == "unusable_audio"
    assert 'enclap_batch_size_bucket{le="1.0",queue="sounds"} 0.0' in service.get("/metrics").text


def test_a_timeline_of_windows(client: MakeClient, sounds: list[Path]) -> None:
    answer = client().post("/v1/timeline?window_s=1&hop_s=0.5", content=sounds[3].read_bytes(), headers=WAV).json()
    assert answer["duration_s"] == pytest.approx(1.75)
    starts = [one["start_s"] for one in answer["segments"]]
    assert starts[:2] == [0.0, 0.5]
    assert all(one["caption"]["text"] for one in answer["segments"])


def test_a_timeline_ends_when_nobody_waits_for_it(
    ensemble: Ensemble, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    captioned: list[int] = []

    def caption_clips(clips: Sequence[Any], seed: int | None) -> list[Any]:
        captioned.append(len(clips))
        return [None] * len(clips)

    monkeypatch.setattr(ensemble, "caption_clips", caption_clips)
    engine = Engine(ensemble, ServiceSettings(batch_size=1))
    request = CaptionWindows(Sound(sounds[3].read_bytes()).checked(60), None, 0.1, None)
    (answer,) = answer_all(engine, [request], lambda: len(captioned) < 2)
    assert isinstance(answer, TimeoutError)
    assert captioned == [1, 1]


def test_windows_are_no_longer_than_what_is_heard(client: MakeClient, sounds: list[Path]) -> None:
    service, content = client(), sounds[3].read_bytes()
    assert service.get("/v1/about").json()["heard_s"] == 3.0
    assert len(service.post("/v1/timeline", content=content, headers=WAV).json()["segments"]) == 1
    refused = service.post("/v1/timeline?window_s=3.5", content=content, headers=WAV)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_searches_find_what_the_library_finds(client: MakeClient, indexed: Path, sounds: list[Path]) -> None:
    ensemble, service = Ensemble.load(indexed, "cpu"), service_of(client, indexed)
    by_text = service.post("/v1/retrieve", json={"query": "a dog barks", "top_k": 2}).json()["files"]
    assert [one["name"] for one in by_text] == [one.path for one in ensemble.retrieve("a dog barks", 2)]
    by_sound = service.post("/v1/similar?top_k=3", content=sounds[2].read_bytes(), headers=WAV).json()["files"]
    assert [one["name"] for one in by_sound] == [one.path for one in ensemble.similar(sounds[2], 3)]
    assert by_sound[0]["name"] == str(sounds[2])
    (one,) = service.post("/v1/retrieve", json={"query": "rain", "name": "*-1.wav"}).json()["files"]
    assert one["name"] == str(sounds[1])


def test_an_empty_index_is_said(client: MakeClient) -> None:
    answer = client().post("/v1/retrieve", json={"query": "rain"})
    assert (answer.status_code, answer.json()["code"]) == (409, "empty_index")


def test_files_are_listed_page_by_page(client: MakeClient, indexed: Path, sounds: list[Path]) -> None:
    service = service_of(client, indexed)
    pages = [service.get(f"/v1/index?offset={offset}&limit=3").json() for offset in (0, 3)]
    assert [page["total"] for page in pages] == [4, 4]
    assert [one["name"] for page in pages for one in page["files"]] == [str(path) for path in sounds]


def test_what_clients_add_and_remove_is_kept_in_the_bundle(
    client: MakeClient, indexed: Path, sounds: list[Path]
) -> None:
    service = service_of(client, indexed, write_index=True)
    added = service.post("/v1/index?name=new.wav", content=sounds[0].read_bytes(), headers=WAV)
    assert added.status_code == 201
    assert added.json()["name"] == "uploads/new.wav"
    assert "uploads/new.wav" in Ensemble.load(indexed, "cpu").audio_index.paths
    removed = service.delete(f"/v1/index/{added.json()['id']}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert Ensemble.load(indexed, "cpu").audio_index.paths == [str(path) for path in sounds]
    again = service.delete(f"/v1/index/{added.json()['id']}")
    assert (again.status_code, again.json()["code"]) == (404, "unknown_file")


def test_an_index_is_read_only_unless_the_service_was_started_otherwise(
    client: MakeClient, indexed: Path, sounds: list[Path]
) -> None:
    service = service_of(client, indexed)
    some = service.get("/v1/index").json()["files"][0]["id"]
    for answer in (
        service.post("/v1/index?name=new.wav", content=sounds[0].read_bytes(), headers=WAV),
        service.delete(f"/v1/index/{some}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "read_only")
    assert service.get("/v1/index").json()["total"] == 4


class TestAudio:
    """Clients hear the files that the operator indexed, and no others."""

    def test_is_shared_only_if_the_service_was_started_so(self, client: MakeClient, indexed: Path) -> None:
        service = service_of(client, indexed)
        (one, *_) = service.get("/v1/index").json()["files"]
        assert not one["audio"]
        assert service.get(f"/v1/index/{one['id']}/audio").status_code == 404

    def test_is_the_file_and_parts_of_it(self, client: MakeClient, indexed: Path, sounds: list[Path]) -> None:
        service = service_of(client, indexed, share_audio=True)
        (one, *_) = service.get("/v1/index").json()["files"]
        assert one["audio"]
        answer = service.get(f"/v1/index/{one['id']}/audio")
        assert answer.content == sounds[0].read_bytes()
        assert answer.headers["content-type"].startswith("audio/")
        part = service.get(f"/v1/index/{one['id']}/audio", headers={"Range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"RIFF")

    @pytest.mark.parametrize("name", ["/etc/passwd", "../../etc/passwd", "..\\passwd", "a\nb", ""])
    def test_is_not_reached_by_a_path(self, client: MakeClient, indexed: Path, sounds: list[Path], name: str) -> None:
        service = service_of(client, indexed, share_audio=True, write_index=True)
        query = {"name": name}
        added = service.post("/v1/index", params=query, content=sounds[0].read_bytes(), headers=WAV)
        assert added.status_code == 422
        assert service.get("/v1/index/%2Fetc%2Fpasswd/audio").status_code in (404, 422)

    def test_of_what_clients_added_is_not_kept(
        self, client: MakeClient, indexed: Path, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even where the name that they gave is that of a file."""
        (indexed.parent / "uploads").mkdir()
        (indexed.parent / "uploads" / "secret.wav").write_text("secret")
        monkeypatch.chdir(indexed.parent)
        service = service_of(client, indexed, share_audio=True, write_index=True)
        added = service.post("/v1/index?name=secret.wav", content=sounds[0].read_bytes(), headers=WAV).json()
        assert not added["audio"]
        assert service.get(f"/v1/index/{added['id']}/audio").status_code == 404

    def test_that_has_changed_since_it_was_indexed_is_not_shared(
        self, client: MakeClient, bundle: Path, sounds: list[Path], tmp_path: Path
    ) -> None:
        own, copied = Path(shutil.copy(sounds[0], tmp_path / "own.wav")), shutil.copytree(bundle, tmp_path / "bundle")
        index_command(copied, [own])
        service = service_of(client, copied, share_audio=True)
        (one,) = service.get("/v1/index").json()["files"]
        own.write_text("another thing")
        assert service.get(f"/v1/index/{one['id']}/audio").status_code == 404

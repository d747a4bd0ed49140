"""Who is trained when."""

import io

import psutil
import pytest
import ray
import torch
from rich.console import Console
from transformers import AutoModel

from models.published import published_architecture
from models.retriever.model import Retriever
from models.settings import RetrieverConfig
from ray_jobs.experiment.config import ConfigError, Experiment
from ray_jobs.experiment.loading import load_experiment
from ray_jobs.experiment.member_config import RetrieverMember
from ray_jobs.train import check_resources, shortages
from ray_jobs.training.memory import device_bytes, layout, worker_memory
from ray_jobs.training.plan import Need, by_critical_path, enlarged, fits, requests, room, table, take, waves

from ..conftest import ROOT


def smoke(*overrides: str) -> Experiment:
    return load_experiment(ROOT / "experiments" / "smoke.yaml", list(overrides))


def test_what_most_waits_for_goes_first() -> None:
    experiment = smoke("members.captioner-deep.training.epochs=20", "members.fluency.training.epochs=6")
    order = by_critical_path(experiment, set(experiment.members))
    assert order == [
        "retriever-bert",  # 2 epochs and the 20 of captioner-deep
        "captioner-deep",
        "fluency",
        "retriever-bge",  # 2 and the 2 of captioner-wide
        "retriever-roberta",
        "captioner-wide",
    ]


def test_members_start_whole_or_not_at_all() -> None:
    experiment = smoke()
    wide = experiment.members["retriever-roberta"]  # two workers of half a CPU
    free = {"CPU": 0.9, "GPU": 0.0}
    assert not fits(wide, free)
    free["CPU"] = 1.0
    assert fits(wide, free)
    take(wide, free)
    assert free["CPU"] == 0
    take(wide, free, +1)
    assert free["CPU"] == 1


def test_what_a_worker_takes_by_rays_names() -> None:
    resources = "{workers: [1, 2], gpus_per_worker: 0.5, accelerator_type: H100, custom: {nvme: 3}}"
    member = smoke(f"members.fluency.resources={resources}").members["fluency"]
    assert member.resources.per_worker() == {"CPU": 1, "GPU": 0.5, "nvme": 3, "accelerator_type:H100": 0.001}
    assert requests(member) == {"CPU": 1, "GPU": 0.5, "nvme": 3, "accelerator_type:H100": 0.001}, "books the least"
    node = {"CPU": 8.0, "GPU": 1.0, "nvme": 6.0, "accelerator_type:H100": 1.0}
    assert room(member.resources.per_worker(), [node, node | {"nvme": 5.0}, {"CPU": 64.0}]) == 3
    shown = Console(width=200, record=True, file=io.StringIO())
    experiment = smoke(f"members.fluency.resources={resources}")
    shown.print(
        table(
            experiment, {"fluency"}, dict.fromkeys(node, 9.0), {"fluency": Need(12_000_000, 3_000_000, 80_000_000_000)}
        )
    )
    row = " ".join(shown.export_text().splitlines()[1].split())
    assert (
        row
        == "1 fluency fluency-detector 1-2 1 CPU, 0.5 GPU, 3 nvme, accelerator_type:H100 12.0 MB 3.0 MB fits: 80.0 GB 1"
    )


def test_members_that_no_node_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of half a GPU each are no node of one."""
    halves = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 0.5}}] * 2
    monkeypatch.setattr(ray, "nodes", lambda: [*halves, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 1.0}}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    check_resources(smoke("members.fluency.resources={workers: 2, gpus_per_worker: 0.5}"))
    with pytest.raises(ConfigError, match=r"1 workers of 1 CPU, 1 GPU, the cluster's nodes have room for 0: a worker"):
        check_resources(smoke("members.fluency.resources={gpus_per_worker: 1}"))


def test_what_finds_no_room_is_planned_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    experiment = smoke("members.fluency.resources={gpus_per_worker: 1}", "members.retriever-bge.resources={workers: 4}")
    assert list(shortages(experiment)) == [
        "members.retriever-bge.resources asks for 4 CPU, the cluster has 2",
        "members.fluency.resources asks for 1 GPU, the cluster has 0",
    ]
    large = enlarged({"CPU": 2.0}, experiment)
    assert large == {"CPU": 4.0, "GPU": 1.0}
    planned = waves(experiment, set(experiment.members), large)
    assert {name for wave in planned for name in wave} == set(experiment.members)


def state_bytes(experiment: Experiment, name: str) -> int:
    memory = worker_memory(experiment, name)
    assert memory
    return memory.state


def test_memory_is_that_of_the_model_that_is_made() -> None:
    elsewhere = "members.retriever-roberta.text_encoder=somebody/encoder"
    experiment = smoke(elsewhere)
    member = experiment.members["retriever-bge"]
    assert isinstance(member, RetrieverMember)
    config = member.convert(RetrieverConfig, log_mel=experiment.features.log_mel)
    made = Retriever.create(config, ["a dog barks"])
    words = member.text_encoder.vocab_size - len(made.text_encoder.tokenizer)  # the estimate counts all that may be
    parameters = sum(p.numel() for p in made.parameters()) + words * 64
    laid_out = layout(experiment, "retriever-bge")
    assert {p.device.type for p in laid_out.parameters()} == {"meta"}
    assert state_bytes(experiment, "retriever-bge") == 4 * 5 * parameters, "with a moving average"
    captioner = sum(p.numel() for p in layout(experiment, "captioner-wide").parameters())
    assert state_bytes(experiment, "captioner-wide") == 4 * 4 * captioner
    assert worker_memory(experiment, "retriever-roberta") is None, "its sizes are on the hub"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("facebook/bart-base", 139_420_416),
        ("facebook/bart-large", 406_291_456),
        ("bert-base-uncased", 109_482_240),
        ("BAAI/bge-base-en-v1.5", 109_482_240),
        ("roberta-base", 124_645_632),
    ],
)
def test_published_models_have_their_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = AutoModel.from_config(published_architecture(name))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_published_recipe_is_planned_without_a_file_of_it() -> None:
    experiment = load_experiment(ROOT / "experiments" / "dcase2024.yaml")
    found = {
        name: worker_memory(experiment, name) for name in ("captioner-large-pretrained", "retriever-bge", "fluency")
    }
    large, retriever, fluency = found.values()
    assert large
    assert retriever
    assert fluency
    weights = 406_291_456 + 9 * 1024 * 1024  # BART-large as published, and an embedding of every code
    assert large.state == pytest.approx(4 * 5 * weights, rel=0.03), "of four workers, with buckets of gradients"
    assert fluency.state == pytest.approx(4 * 109_482_240, rel=0.01), "BERT-base as published, which is not trained"
    assert 20e9 < large.activations < 80e9, "64 clips of 1,000 positions"
    assert large.scratch == pytest.approx(8.2e9, rel=0.05), "a worker was seen to take 8.5 GB"
    assert 5e9 < retriever.activations < 60e9, "64 pairs of 30 s at a time"


def test_a_language_model_that_drops_layers_by_chance_is_planned_with_all_of_them() -> None:
    name, drops = "captioner-deep", ("encoder_layerdrop", "decoder_layerdrop")
    dropping = worker_memory(smoke(*(f"members.captioner-deep.sizes.{one}=0.5" for one in drops)), name)
    whole = worker_memory(smoke(), name)
    assert dropping
    assert whole
    assert dropping.state == whole.state
    assert dropping.activations == pytest.approx(whole.activations, rel=0.01)


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [
        ("{backbone: 'hf:MIT/ast-finetuned-audioset-10-10-0.4593'}", 86_187_264),
        ("{backbone: 'hf:laion/clap-htsat-unfused', sample_rate: 48000}", 27_534_488),
        ("{backbone: 'hf:laion/clap-htsat-fused', sample_rate: 48000}", None),
        ("{backbone: 'hf:openai/whisper-tiny', finetuning: frozen}", 8_208_384),
        ("{backbone: 'hf:facebook/wav2vec2-base', finetuning: lora}", None),
        ("vit_tiny_patch16_224", None),
    ],
)
def test_audio_encoders_are_planned_without_their_files(encoder: str, parameters: int | None) -> None:
    """A step of 16 clips of up to 10 s, without weights, feature extractor or network."""
    experiment = smoke(f"members.retriever-bge.audio_encoder={encoder}")
    found = layout(experiment, "retriever-bge")
    assert isinstance(found, Retriever)
    if parameters:
        assert sum(p.numel() for p in found.audio_encoder.parameters()) == parameters
    memory = worker_memory(experiment, "retriever-bge")
    assert memory
    assert memory.activations > (1e6 if "frozen" in encoder else 10e6), "what is frozen keeps none"


@pytest.mark.parametrize(
    ("name", "less"),
    [
        ("captioner-wide", "members.captioner-wide.gradient_checkpointing=true"),
        ("captioner-wide", "members.captioner-wide.training.accumulate=4"),
        ("retriever-bge", "members.retriever-bge.gradient_cache=8"),
        ("retriever-bge", "members.retriever-bge.audio_encoder.max_frames=100"),
        ("fluency", "members.fluency.training.precision=bfloat16"),
    ],
)
def test_settings_that_save_memory_do_so_in_the_estimate(name: str, less: str) -> None:
    before, after = (worker_memory(experiment, name) for experiment in (smoke(), smoke(less)))
    assert before
    assert after
    assert after.activations < 0.9 * before.activations
    assert after.state == before.state


def test_a_device_is_known_by_its_name_or_by_being_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def fluency(resources: str) -> int | None:
        return device_bytes(smoke(f"members.fluency.resources={resources}").members["fluency"])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fluency("{gpus_per_worker: 1, accelerator_type: H100}") == 80e9
    assert fluency("{gpus_per_worker: 0.5, accelerator_type: H100}") == 40e9
    assert fluency("{gpus_per_worker: 1}") is None
    assert fluency("{}") == psutil.virtual_memory().total
    assert Need(state=60, activations=30, device=100).fits
    assert not Need(state=60, activations=39, device=100).fits, "libraries take some"
    assert Need(state=60, activations=30).fits is None


def test_waves_keep_edges_and_resources() -> None:
    experiment = smoke("members.captioner-deep.init_from=captioner-wide")
    found = waves(experiment, set(experiment.members), {"CPU": 2.0})
    at = {name: number for number, wave in enumerate(found) for name in wave}
    assert at.keys() == experiment.members.keys()
    for name, member in experiment.members.items():
        assert all(at[edge] < at[name] for edge in member.edges())
    assert all(sum(experiment.members[name].resources.min_workers for name in wave) <= 3 for wave in found)
    everything_at_once = waves(experiment, set(experiment.members), {"CPU": 64.0})
    assert [len(wave) for wave in everything_at_once] == [4, 1, 1]

"""The package of a job, cluster.yaml and deploy/. Nothing here uses a network."""

import os
import re
import stat
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import jsonschema
import pytest
import yaml
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

from ray_jobs.experiment.loading import load_experiment

ROOT = Path(__file__).parents[1]
PACKAGE_BYTES = 4 * 2**20
CLUSTER = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
REPLACED = {
    "gcp": ["provider", "auth", "available_node_types", "head_node_type", "initialization_commands",
            "head_setup_commands"],
    "own": ["provider", "auth", "max_workers", "available_node_types", "head_node_type", "initialization_commands",
            "head_setup_commands"],
}  # fmt: skip


# --- the working directory of a job --------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tracked files, and files such as work leaves beside them: 64 MiB each, sparse."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.strip("\0").split("\0"):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    left = [
        "data/corpus/a.flac",
        "runs/demo/members/a/model.safetensors",
        ".venv/lib/torch.so",
        ".git/objects/pack/a",
        "models/__pycache__/a.pyc",
        ".mypy_cache/a",
        "notes/a.wav",
    ]
    for name in left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("wb") as file:
            file.truncate(64 * 2**20)
    (tmp_path / ".env").write_text("HF_TOKEN=hf_secret")
    return tmp_path


def packaged(directory: Path, target: Path) -> list[str]:
    """Return the names of the files that `ray job submit --working-dir` uploads, by Ray's own code."""
    create_package(str(directory), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with ZipFile(target) as package:
        return package.namelist()


def test_a_job_uploads_the_code_alone(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("package") / "package.zip"
    names = packaged(checkout, target)
    assert target.stat().st_size < PACKAGE_BYTES
    top = {name.split("/")[0] for name in names}
    assert not top & {"data", "runs", ".venv", ".git", ".mypy_cache", ".env", "tests", "benchmarks", "notes"}
    assert not [name for name in names if "__pycache__" in name]
    needed = {
        "ray_jobs/pipeline.py",
        "ray_jobs/reporting/templates/report.html",
        "experiments/demo.yaml",
        "pyproject.toml",
        "corpora/audio.py",
        "tune_spaces/sampling.py",
        "models/ensemble/bundle.py",
    }
    assert needed <= set(names)
    shipped = ROOT / "models" / "codec" / "shipped"
    weights = [str(path.relative_to(ROOT)) for path in shipped.iterdir() if path.is_file()]
    assert set(weights) <= set(names)


def test_links_to_data_are_not_followed(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("data", "runs", ".venv"):
        (checkout / name).rename(elsewhere / name)
        (checkout / name).symlink_to(elsewhere / name)
    target = elsewhere / "package.zip"
    assert not [name for name in packaged(checkout, target) if name.startswith(("data", "runs", ".venv"))]
    assert target.stat().st_size < PACKAGE_BYTES


# --- cluster.yaml --------------------------------------------------------------------------------------------------


def cluster(variant: str) -> dict[str, Any]:
    """Return cluster.yaml as it is, or with a variant's lines in place of the sections that they replace."""
    config = yaml.safe_load(CLUSTER)
    if variant != "aws":
        lines = re.findall(rf"^#{variant}: (.*)$", CLUSTER, re.MULTILINE)
        config = {key: value for key, value in config.items() if key not in REPLACED[variant]}
        config |= yaml.safe_load("\n".join(lines))
    return config


@pytest.mark.parametrize("variant", ["aws", "gcp", "own"])
def test_cluster_is_valid_for_ray(variant: str) -> None:
    prepared = prepare_config(cluster(variant))
    validate_config(prepared)
    broken = prepare_config(cluster(variant) | {"max_wrokers": 1})
    with pytest.raises(Exception, match="max_wrokers"):
        validate_config(broken)
    assert prepared["provider"]["type"] == {"own": "local"}.get(variant, variant)
    assert sum(node.get("max_workers", 0) for node in prepared["available_node_types"].values()) >= 1


@pytest.mark.parametrize("variant", ["aws", "gcp", "own"])
def test_cluster_is_closed(variant: str) -> None:
    """Ray's own AWS defaults open the dashboard to all interfaces, and need a token only if one exists."""
    prepared = prepare_config(cluster(variant))
    head, worker = (" ".join(prepared[f"{who}_start_ray_commands"]) for who in ("head", "worker"))
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in head
    assert all("RAY_AUTH_MODE=token ray start" in commands for commands in (head, worker))
    assert prepared["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in prepared["setup_commands"]


def test_cluster_installs_the_lock() -> None:
    config = cluster("aws")
    install = next(command for command in config["setup_commands"] if "requirements.lock" in command)
    assert {"--no-deps", "--require-hashes"} <= set(install.split())
    mounted = config["file_mounts"]["/home/ray/requirements.lock"]
    assert (ROOT / mounted).is_file()
    assert f"ray:{version('ray')}-py311" in config["docker"]["image"]


@pytest.mark.parametrize("variant", ["aws", "gcp"])
def test_spot_falls_back_to_on_demand(variant: str) -> None:
    types = cluster(variant)["available_node_types"]
    spot, on_demand = types["gpu-spot"], types["gpu-on-demand"]
    assert spot["priority"] > on_demand.get("priority", 0)
    assert spot["resources"] == on_demand["resources"]
    is_spot = {"aws": "spot", "gcp": "preemptible"}[variant]
    assert is_spot in str(spot["node_config"])
    assert is_spot not in str(on_demand["node_config"])
    assert is_spot not in str(types["head"]["node_config"])


# --- deploy/ -------------------------------------------------------------------------------------------------------


def of_type(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


def keys(required: list[str], **properties: Any) -> dict[str, Any]:
    return of_type("object", required=required, properties=properties, additionalProperties=False)


# KubeRay's schema is in no Python package: these are the fields that deploy/kuberay.yaml uses, as KubeRay's
# reference names them, so that a misspelt or misplaced one is found. A cluster's own validation goes further.
TEXT, COUNT, ANY = of_type("string", minLength=1), of_type("integer", minimum=0), of_type("object")
QUANTITIES = of_type("object", additionalProperties={"type": ["string", "integer"]})
CONTAINER = keys(
    ["name", "image", "resources", "volumeMounts"],
    name=TEXT,
    image=TEXT,
    resources=keys(["requests", "limits"], requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts=of_type("array", items=keys(["name", "mountPath"], name=TEXT, mountPath=TEXT)),
)
POD = keys(
    ["metadata", "spec"],
    metadata=keys(["labels"], labels=ANY),
    spec=keys(["containers"], containers=of_type("array", minItems=1, items=CONTAINER), volumes=of_type("array")),
)
WORKERS = keys(
    ["groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=ANY,
    template=POD,
)
RAY_CLUSTER = keys(
    ["headGroupSpec", "workerGroupSpecs"],
    rayVersion=TEXT,
    authOptions=keys(["mode"], mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=of_type("boolean"),
    autoscalerOptions=keys([], idleTimeoutSeconds=COUNT),
    headGroupSpec=keys(["rayStartParams", "template"], rayStartParams=ANY, template=POD),
    workerGroupSpecs=of_type("array", minItems=1, items=WORKERS),
)
RAY_JOB = keys(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=keys(["name"], name=TEXT),
    spec=keys(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=TEXT,
        backoffLimit=COUNT,
        ttlSecondsAfterFinished=COUNT,
        shutdownAfterJobFinishes=of_type("boolean"),
        rayClusterSpec=RAY_CLUSTER,
    ),
)


def test_kuberay_job() -> None:
    job, claim, policy = yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(job, RAY_JOB)
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"]["mode"] == "token"
    assert spec["rayVersion"] == version("ray")
    (workers,) = spec["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    pods = [spec["headGroupSpec"]["template"], workers["template"]]
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["spec"]["volumes"]}
        assert pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert pod["metadata"]["labels"] == policy["spec"]["podSelector"]["matchLabels"]
    assert pods[1]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_kuberay_entrypoint_is_a_command_of_the_project() -> None:
    job = next(yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text(encoding="utf-8")))
    python, flag, module, experiment, *overrides = job["spec"]["entrypoint"].split()
    assert (python, flag) == ("python", "-m")
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    in_the_image = Path(experiment).relative_to("/home/ray/enclap")  # WORKDIR of deploy/Dockerfile
    loaded = load_experiment(ROOT / in_the_image, overrides)
    paths = [loaded.storage_path, *(corpus.root for corpus in loaded.corpora.values())]
    assert all(path.startswith("/mnt/shared/") for path in paths)


def test_image_holds_what_the_project_installs() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in project["tool"]["setuptools"]["packages"]["find"]["include"]:
        assert f"COPY --chown=ray {package.rstrip('*')} " in dockerfile
    assert f"FROM rayproject/ray:{version('ray')}-py311" in dockerfile
    assert "--no-deps --require-hashes -r requirements.lock" in dockerfile


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment in which srun, ray and python record how they are called.

    `ray start` runs until it is ended, and the wait for the nodes is a wait for two of them.
    """
    stub = f"""#!/bin/bash
echo "$(basename "$0") $*" >> "{tmp_path}/calls"
[[ $(basename "$0") != srun ]] || {{ while [[ $1 == --* ]]; do shift; done; exec "$@"; }}
[[ $(basename "$0") != ray || $1 != start ]] || {{
    [[ -s $RAY_AUTH_TOKEN_PATH && $RAY_AUTH_MODE == token ]] || exit 9
    stat -c %a "$RAY_AUTH_TOKEN_PATH" >> "{tmp_path}/modes"; exec sleep 60
}}
[[ $(basename "$0") != python || $1 != - ]] || until [[ $(wc -l < "{tmp_path}/modes") == 2 ]]; do sleep 0.05; done
[[ $* != *ray_jobs.pipeline* ]] || {{ sleep "${{PIPELINE_S:-0}}"; exit "${{PIPELINE_EXIT:-0}}"; }}
"""
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("srun", "ray", "python"):
        (binaries / name).write_text(stub)
        (binaries / name).chmod(0o755)
    slurm = {"SUBMIT_DIR": str(tmp_path), "JOB_ID": "71234", "JOB_NUM_NODES": "3", "CPUS_PER_TASK": "8",
             "GPUS_ON_NODE": "2"}  # fmt: skip
    return os.environ | {f"SLURM_{key}": value for key, value in slurm.items()} | {"HOME": str(tmp_path)}


def sbatch(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    script = str(ROOT / "deploy" / "slurm.sh")
    return subprocess.Popen(["bash", script, *arguments], env=environment, text=True, stderr=subprocess.PIPE)


@pytest.mark.parametrize("code", [0, 1])
def test_slurm_starts_runs_and_tidies_up(slurm: dict[str, str], tmp_path: Path, code: int) -> None:
    finished = sbatch(slurm | {"PIPELINE_EXIT": str(code)}, "experiments/demo.yaml", "storage_path=/shared/my runs")
    assert finished.wait(30) == code, "Slurm must see the exit code of the job"
    calls = (tmp_path / "calls").read_text().splitlines()
    starts = sorted(call for call in calls if call.startswith("ray start"))
    assert len(starts) == 2
    assert starts[0].startswith("ray start --address=")
    assert starts[1].startswith("ray start --head --port=21234 --include-dashboard=false")
    assert all("--num-cpus=8 --num-gpus=2" in start for start in starts)
    assert any(call.startswith("srun --nodes=2 --ntasks=2 --exclude=") for call in calls)
    assert calls[-1] == "python -m ray_jobs.pipeline experiments/demo.yaml storage_path=/shared/my runs"
    assert set((tmp_path / "modes").read_text().split()) == {"600"}
    assert not list((tmp_path / ".ray").iterdir()), "the token is removed with the cluster"


def test_slurm_stopped_by_its_time_limit(slurm: dict[str, str], tmp_path: Path) -> None:
    running = sbatch(slurm | {"PIPELINE_S": "60"}, "experiments/demo.yaml")
    while not (tmp_path / "calls").is_file() or "pipeline" not in (tmp_path / "calls").read_text():
        assert running.poll() is None
    running.terminate()
    assert running.wait(20) == 143
    assert not list((tmp_path / ".ray").iterdir())


def test_slurm_without_an_experiment_is_refused(slurm: dict[str, str], tmp_path: Path) -> None:
    refused = sbatch(slurm)
    assert refused.wait(10) == 2
    assert refused.stderr is not None
    assert "usage" in refused.stderr.read()
    assert not (tmp_path / "calls").exists()
    assert (ROOT / "deploy" / "slurm.sh").stat().st_mode & stat.S_IXUSR

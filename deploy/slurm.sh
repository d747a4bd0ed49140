#!/usr/bin/env bash
# One run on Slurm nodes: a Ray head on the first and workers on the others, for the time of one pipeline.
#
#   sbatch --nodes=4 --gpus-per-node=1 deploy/slurm.sh experiments/demo.yaml \
#       storage_path=/shared/runs corpora.soundscapes.root=/shared/soundscapes
#
# Submit it from the project's root, on a file system that all nodes share, after `make .venv/.installed`.
# To resume a run that reached its time limit, submit it again.
#SBATCH --job-name=enclap
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=enclap-%j.log
set -euo pipefail
[[ $# -gt 0 ]] || { echo "usage: sbatch deploy/slurm.sh EXPERIMENT [KEY=VALUE]..." >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
export PATH="$PWD/.venv/bin:$PATH"

# Nodes may be shared and networks open: every connection needs a token that only this user can read.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/slurm-$SLURM_JOB_ID"
mkdir -p "$HOME/.ray"
(umask 077; od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH")

port=$((20000 + SLURM_JOB_ID % 10000))  # one for each job, so that two jobs on one node do not collide
head=$(hostname)
node=(--block --disable-usage-stats --num-cpus="${SLURM_CPUS_PER_TASK:?}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

children=()
tidy_up() {
    trap '' TERM INT
    for child in "${children[@]}"; do kill -TERM "$child" 2>/dev/null || true; done
    wait || true
    rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap tidy_up EXIT
trap 'exit 143' TERM INT

# No dashboard, because nothing is submitted from outside.
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    ray start --head --port="$port" --include-dashboard=false --temp-dir="/tmp/ray-$SLURM_JOB_ID" "${node[@]}" &
children+=($!)
until ray status --address "$head:$port" >/dev/null 2>&1; do
    kill -0 "${children[0]}" 2>/dev/null || { echo "the head has ended" >&2; exit 1; }
    sleep 2
done
others=$((SLURM_JOB_NUM_NODES - 1))
if [[ $others -gt 0 ]]; then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" --overlap \
        ray start --address="$head:$port" "${node[@]}" &
    children+=($!)
fi
export RAY_ADDRESS="$head:$port"
# Wait for all nodes: a member that the current nodes could not hold would be refused.
python - "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import sys
import time

import ray

ray.init(log_to_driver=False)
end = time.monotonic() + 300
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    if time.monotonic() > end:
        sys.exit(f"not all of {sys.argv[1]} nodes joined within five minutes")
    time.sleep(1)
PYTHON

python -m ray_jobs.pipeline "$@" &  # in the background, so that bash handles signals meanwhile
children=($! "${children[@]}")
wait "$!"

#!/bin/bash
# The night run on Slurm. This job holds Prefect's server and Dask's scheduler, and submits the workers as jobs of their own.
# Everything lies where all nodes see it: the environment with `pip install '.[slurm]'`, photos, weights, warehouse.
#   sbatch deploy/slurm/nightly.sh ENVIRONMENT CATALOGUE WAREHOUSE [more options of `pairx run`, such as --device cuda]
# Every night, with `scrontab -e`:   0 2 * * * cd PROJECT && sbatch deploy/slurm/nightly.sh …
# Queue, account, time and memory of the workers' jobs: jobqueue.yaml beside this file.
#SBATCH --job-name=pairx-nightly
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --output=pairx-nightly-%j.log
# A night that lasts into the next one is not met; and two minutes before its time is up a run is told to stop in order.
#SBATCH --dependency=singleton
#SBATCH --signal=B:TERM@120
set -euo pipefail
environment=$1 catalogue=$2 warehouse=$3
shift 3
export PATH="$environment/bin:$PATH"
export DASK_CONFIG="${DASK_CONFIG:-$SLURM_SUBMIT_DIR/deploy/slurm}"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
WORKERS=${WORKERS:-8}

# Prefect keeps nothing that matters: the warehouse is the record.
PREFECT_HOME=$(mktemp -d)
export PREFECT_HOME
port=$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
prefect server start --host 0.0.0.0 --port "$port" --no-ui --no-services &
server=$!
run=
trap 'kill "$server" $run 2>/dev/null; wait; rm -rf "$PREFECT_HOME"' EXIT
trap '[ -z "$run" ] || kill -TERM "$run"' TERM INT

export PREFECT_API_URL="http://$(hostname):$port/api"
answers='import os, urllib.request as u; u.urlopen(os.environ["PREFECT_API_URL"] + "/health", timeout=5)'
for _ in $(seq 120); do
    python -c "$answers" 2>/dev/null && break
    kill -0 "$server"
    sleep 1
done

pairx run "$catalogue" --warehouse "$warehouse" --cluster slurm --workers "$WORKERS" --wait "$@" &
run=$!
wait "$run" && code=0 || code=$?
# A signal ends a wait before the run has ended.
while kill -0 "$run" 2>/dev/null; do
    wait "$run" && code=0 || code=$?
done
run=
exit "$code"

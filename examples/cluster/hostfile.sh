#!/usr/bin/env bash
# Start torchrun on every machine of ./hostfile over SSH. Usage: ./hostfile.sh ISSUE [STAGE]
# Not run by the project's tests.
set -euo pipefail
issue=${1:?issue, e.g. ucc}
stage=${2:-train-mllm}
workspace=$PWD
grep -Eq '^ *save_steps: *[0-9]' params.yaml || {
  echo "params.yaml: set runtime.save_steps, e.g. 200: a killed job would lose up to an epoch" >&2
  exit 2
}
mapfile -t lines < <(grep -v '^\s*\(#\|$\)' "$(dirname "$0")/hostfile")
first=${lines[0]%% *}
pids=()
for index in "${!lines[@]}"; do
  host=${lines[$index]%% *}
  slots=${lines[$index]##*slots=}
  ssh "$host" "cd '$workspace' && OMP_NUM_THREADS=${OMP_NUM_THREADS:-8} COEFVQ_CACHE='$workspace/.coefvq/cache' torchrun \
    --nnodes ${#lines[@]} --node-rank $index --nproc-per-node $slots \
    --master-addr $first --master-port 29500 \
    -m coefvq $stage --issue $issue" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done

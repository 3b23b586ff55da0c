#!/usr/bin/env bash
# Start the agents of a Weights & Biases sweep and wait for them; Ctrl-C stops all of them and their runs.
# Usage: bash scripts/run_sweep.sh SWEEP_ID AGENTS_PER_GPU GPUS    (the usage below explains them)
set -euo pipefail

usage="usage: bash scripts/run_sweep.sh SWEEP_ID AGENTS_PER_GPU GPUS
  SWEEP_ID        as 'wandb sweep' prints it: ID or ENTITY/PROJECT/ID
  AGENTS_PER_GPU  agents that share one GPU, at least 1
  GPUS            how many, as in 2 for GPUs 0 and 1 (0: AGENTS_PER_GPU agents on the CPU),
                  or which, with a comma, as in 0,2 or 3,
The agents write to runs/sweeps/ID/gpu0-agent1.log and so on."

mistake() {
  printf 'error: %s\n%s\n' "$1" "$usage" >&2
  exit 2
}

[ $# = 3 ] || mistake "expected 3 arguments, got $#"
sweep=$1 agents=$2 gpus=()
[[ $sweep =~ ^([^-/][^/]*/){0,2}[A-Za-z0-9_][A-Za-z0-9_-]*$ ]] || mistake "SWEEP_ID: expected ID or ENTITY/PROJECT/ID, got '$sweep'"
[[ $agents =~ ^[1-9][0-9]{0,2}$ ]] || mistake "AGENTS_PER_GPU: expected a whole number from 1 to 999, got '$agents'"
number='(0|[1-9][0-9]{0,2})'
if [[ $3 =~ ^$number(,$number)*,?$ && $3 == *,* ]]; then
  IFS=, read -ra gpus <<<"$3"
  [ -z "$(printf '%s\n' "${gpus[@]}" | sort | uniq -d)" ] || mistake "GPUS: '$3' names a GPU twice"
elif [[ $3 =~ ^$number$ ]]; then
  for ((gpu = 0; gpu < $3; gpu++)); do gpus+=("$gpu"); done
else
  mistake "GPUS: expected a count such as 2, or a list such as '0,2' or '3,', got '$3'"
fi
# On a GPU that is not there, main.py would quietly train on the CPU.
if present=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU '); then
  for gpu in "${gpus[@]}"; do
    [ "$gpu" -lt "$present" ] || mistake "GPUS: there is no GPU $gpu; nvidia-smi lists $present, counted from 0"
  done
fi

cd "$(dirname "$0")/.."
source scripts/environment.sh
command -v wandb >/dev/null || {
  echo "error: wandb is not installed; expected it from: pip install -r requirement.txt" >&2
  exit 2
}
logs_folder="runs/sweeps/${sweep##*/}"
mkdir -p "$logs_folder"
if [ "${#gpus[@]}" = 0 ]; then gpus=(""); fi # the CPU: one group of agents that see no GPU
if [ -z "${gpus[0]}" ] || [ "$agents" -gt 1 ]; then
  share=$(($(nproc) / (agents * ${#gpus[@]})))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((share > 0 ? share : 1))}"
fi

pids=() logs=() stopped="" signalled=""

# stop STATUS: an agent lets its run end by itself after one Ctrl-C, which can take hours, and ends it after two.
# shellcheck disable=SC2317 # called by the traps
stop() {
  stopped=$1 signalled=1
  echo "stopping the agents and their runs" >&2
  for pause in 1 0; do
    for pid in "${pids[@]}"; do kill -INT -- "-$pid" 2>/dev/null || true; done
    sleep "$pause"
  done
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP

for gpu in "${gpus[@]}"; do
  for ((agent = 1; agent <= agents; agent++)); do
    [ -z "$stopped" ] || break 2
    log="$logs_folder/${gpu:+gpu}${gpu:-cpu}-agent$agent.log"
    # A process group of its own, and no inherited deafness to Ctrl-C: the agent hears what stop sends, and only that.
    set -m
    CUDA_VISIBLE_DEVICES=$gpu env --default-signal=INT wandb agent "$sweep" </dev/null >>"$log" 2>&1 &
    set +m
    pids+=("$!") logs+=("$log")
    echo "agent on ${gpu:+GPU }${gpu:-the CPU}: $log"
  done
done

any_failed=0
for index in "${!pids[@]}"; do
  signalled=1
  while [ -n "$signalled" ]; do # a signal ends wait before the agent has ended
    signalled="" status=0
    wait "${pids[index]}" || status=$?
  done
  if [ "$status" != 0 ] && [ -z "$stopped" ]; then
    echo "error: an agent failed with status $status: ${logs[index]}" >&2
    any_failed=1
  fi
done
exit "${stopped:-$any_failed}"

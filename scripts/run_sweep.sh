#!/usr/bin/env bash
# Start the agents of a Weights & Biases sweep and wait for them; Ctrl-C stops all of them and their runs.
# Usage: bash scripts/run_sweep.sh SWEEP_ID AGENTS_PER_GPU GPUS    (the usage below explains them)
# Needs bash 4.4 or newer, env --default-signal (coreutils 8.31 or newer) and nproc; for GPUs, nvidia-smi or
# CUDA_VISIBLE_DEVICES, which SLURM sets.
set -euo pipefail

usage="usage: bash scripts/run_sweep.sh SWEEP_ID AGENTS_PER_GPU GPUS
  SWEEP_ID        as 'wandb sweep' prints it: ID or ENTITY/PROJECT/ID
  AGENTS_PER_GPU  agents that share one GPU, at least 1
  GPUS            how many, as in 2 for GPUs 0 and 1 (0: AGENTS_PER_GPU agents on the CPU),
                  or which, with a comma, as in 0,2 or 3,
                  CUDA_VISIBLE_DEVICES, if set, says which there are: 2 is the first two it lists
The agents write to runs/sweeps/ID/gpu0-agent1.log and so on."

mistake() {
  printf 'error: %s\n%s\n' "$1" "$usage" >&2
  exit 2
}

[ $# = 3 ] || mistake "expected 3 arguments, got $#"
sweep=$1 agents=$2 gpus=()
[[ $sweep =~ ^([^-/][^/]*/){0,2}[A-Za-z0-9_][A-Za-z0-9_-]*$ ]] || mistake "SWEEP_ID: expected ID or ENTITY/PROJECT/ID, got '$sweep'"
[[ $agents =~ ^[1-9][0-9]{0,2}$ ]] || mistake "AGENTS_PER_GPU: expected a whole number from 1 to 999, got '$agents'"

# The GPUs to choose from. On one that is not there, main.py would quietly train on the CPU.
visible=()
present=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ') || true
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
  IFS=, read -ra words <<<"${CUDA_VISIBLE_DEVICES// /}"
  for word in "${words[@]}"; do
    [[ $word =~ ^(0|[1-9][0-9]*|(GPU|MIG)-.+)$ ]] || break # CUDA stops there too, as at -1
    visible+=("$word")
  done
  known="CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' lists ${#visible[@]}"
elif command -v nvidia-smi >/dev/null; then
  for ((gpu = 0; gpu < present; gpu++)); do visible+=("$gpu"); done
  known="nvidia-smi lists $present, counted from 0"
else
  known="nvidia-smi is not installed, and CUDA_VISIBLE_DEVICES is not set"
fi

number='(0|[1-9][0-9]{0,2})'
if [[ $3 =~ ^$number(,$number)*,?$ && $3 == *,* ]]; then
  IFS=, read -ra gpus <<<"$3"
  [ -z "$(printf '%s\n' "${gpus[@]}" | sort | uniq -d)" ] || mistake "GPUS: '$3' names a GPU twice"
  for gpu in "${gpus[@]}"; do
    [[ " ${visible[*]} " == *" $gpu "* ]] || mistake "GPUS: there is no GPU $gpu; $known"
  done
elif [[ $3 =~ ^$number$ ]]; then
  [ "$3" -le "${#visible[@]}" ] || mistake "GPUS: there are fewer than $3; $known"
  gpus=("${visible[@]:0:$3}")
else
  mistake "GPUS: expected a count such as 2, or a list such as '0,2' or '3,', got '$3'"
fi
for gpu in "${gpus[@]}"; do # CUDA_VISIBLE_DEVICES may list what is not there
  [[ $present = 0 || $gpu == *-* || $gpu -lt $present ]] ||
    mistake "GPUS: there is no GPU $gpu; nvidia-smi lists $present, counted from 0"
done

cd "$(dirname "$0")/.."
source scripts/environment.sh
command -v wandb >/dev/null || {
  echo "error: wandb is not installed; expected it from: pip install -r requirement.txt" >&2
  exit 2
}
logs_folder="runs/sweeps/${sweep##*/}"
mkdir -p "$logs_folder"
if [ "${#gpus[@]}" = 0 ]; then gpus=(""); fi # the CPU: one group of agents that see no GPU
if ((agents * ${#gpus[@]} > 1)); then # threads of several processes on one core wait for each other
  share=$(($(nproc) / (agents * ${#gpus[@]})))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((share > 0 ? share : 1))}"
fi

pids=() logs=() stopped="" signalled=""

# stop STATUS: an agent lets its run end by itself after one Ctrl-C, which can take hours, and ends it after two.
# shellcheck disable=SC2317,SC2329 # called by the traps
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
  case $gpu in
    "") place=cpu ;;
    *-*) place=${gpu//\//-} ;; # a name such as GPU-8932f937, or one with slashes
    *) place=gpu$gpu ;;
  esac
  for ((agent = 1; agent <= agents; agent++)); do
    [ -z "$stopped" ] || break 2
    log="$logs_folder/$place-agent$agent.log"
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

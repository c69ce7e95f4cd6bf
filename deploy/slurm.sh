#!/usr/bin/env bash
# A cohort on Slurm, as an array of which each task takes its shard of the work list:
#   sbatch deploy/slurm.sh SLIDES OUTPUT [OPTIONS of lightmuseg cohort]
# The same command again does what is missing or failed. Change the lines below, or override them:
#   sbatch --array=1-32 --gres=none --cpus-per-task=16 deploy/slurm.sh SLIDES OUTPUT
#SBATCH --job-name=lightmuseg
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
set -euo pipefail

fail() { echo "slurm.sh: error: $1" >&2; exit 1; }
[ $# -ge 2 ] || fail "give SLIDES and OUTPUT: sbatch deploy/slurm.sh SLIDES OUTPUT [OPTIONS]."
[ -n "${SLURM_ARRAY_TASK_ID:-}" ] || fail "is not a task of an array; submit it by sbatch --array=1-8."
first=${SLURM_ARRAY_TASK_MIN:?} last=${SLURM_ARRAY_TASK_MAX:?} tasks=${SLURM_ARRAY_TASK_COUNT:?}
[ "$first" -eq 1 ] && [ "$last" -eq "$tasks" ] || fail "--array $first to $last, $tasks tasks: give 1-N, whole."

# Slurm runs a copy of this file; relative paths are seen from where sbatch was called, unless LIGHTMUSEG_HOME names
# another folder.
cd "${LIGHTMUSEG_HOME:-$SLURM_SUBMIT_DIR}"
slides=$1 output=$2
shift 2
# the cores of this task, not all that the node has
cores=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=$cores
exec lightmuseg cohort "$slides" --output "$output" --shard "$SLURM_ARRAY_TASK_ID/$tasks" \
    --workers "$cores" "$@"

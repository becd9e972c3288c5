#!/bin/sh
# Shards as a job array of Slurm, and a job that merges them when all are done:
#
#   recipes/slurm.sh SHARDS MODEL DATA OUT [options of init]
#
# All paths must be on a file system that every node sees. Options of sbatch come from its environment variables
# (SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GPUS_PER_TASK and so on); CPUS is the number of cores of a task.
# A task that is preempted goes on where it was; `sbatch --array=3 recipes/slurm.sh ...` runs a single one again.
set -eu
shards=$1 model=$2 data=$3 out=$4
eva=${EVA_ONNX:-eva-onnx}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    shift 4
    exec "$eva" init "$model" --data "$data" --shard "auto/$shards" \
        --summary "$out.parts/$SLURM_ARRAY_TASK_ID-of-$shards.safetensors" \
        --checkpoint-every 50 --resume --threads "${SLURM_CPUS_PER_TASK:-1}" --no-progress "$@"
fi

mkdir -p "$out.parts"
job=$(sbatch --parsable --requeue --job-name=eva-shards --array="0-$((shards - 1))" --cpus-per-task="${CPUS:-8}" "$0" "$@")
sbatch --job-name=eva-merge --dependency="afterok:${job%%;*}" --cpus-per-task="${CPUS:-8}" \
    --wrap="'$eva' merge '$out.parts'/*-of-$shards.safetensors --out '$out'"

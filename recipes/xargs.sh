#!/bin/sh
# Shards as processes of one machine, and the adapter of all of them:
#
#   recipes/xargs.sh SHARDS AT_ONCE MODEL DATA OUT [options of init]
#
# After a failure or a kill, the same command goes on: finished shards cost nothing.
set -eu
shards=$1 at_once=$2 model=$3 data=$4 out=$5
shift 5
eva=${EVA_ONNX:-eva-onnx}
cores=$(getconf _NPROCESSORS_ONLN)
threads=$(((cores + at_once - 1) / at_once))
mkdir -p "$out.parts"

seq 0 $((shards - 1)) | xargs -P "$at_once" -I '{}' \
    "$eva" init "$model" --data "$data" --shard "{}/$shards" --summary "$out.parts/{}-of-$shards.safetensors" \
    --checkpoint-every 50 --resume --threads "$threads" --quiet "$@"

"$eva" merge "$out.parts"/*-of-"$shards".safetensors --out "$out"

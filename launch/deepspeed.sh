#!/usr/bin/env bash
# Starts one stage on several ranks through the deepspeed launcher:
#
#   launch/deepspeed.sh STAGE CONFIG.yaml [key=value …]
#   PROCESSES=8 launch/deepspeed.sh sft configs/llama2-7b/sft.yaml deepspeed=configs/deepspeed/zero2.json \
#       inputs.model=runs/7b/pretrain inputs.data=data output=runs/7b/sft
#   HOSTFILE=hosts launch/deepspeed.sh …     # lines `host slots=8`; hosts reach each other by ssh
#
# PROCESSES    ranks on each machine; by default the slots of HOSTFILE, without one as many as there are GPUs,
#              or two on the CPU where there is none
# HOSTFILE     machines to run on; without it, this one
# MASTER_ADDR  with HOSTFILE: the first machine's address, which is otherwise asked for by ssh
# MASTER_PORT  by default a free port on one machine, 29500 with HOSTFILE
# PYTHON       the interpreter; by default .venv of this checkout if there is one, otherwise python3
#
# Exit code 75: the ranks were asked to stop and saved; 76: a step went wrong and they went back; the same command
# goes on from there.
#
# Without a `deepspeed=` ZeRO file, in the YAML or here, the ranks train by plain data parallelism.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,21s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
export PATH="$(dirname "$python"):$PATH" # ninja, which builds DeepSpeed's kernels, is found beside python

gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
if [ "$gpus" -eq 0 ]; then
    export DS_ACCELERATOR=cpu
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    gpus=2
fi
options=(--no_local_rank --log_level warning)
if [ -n "${HOSTFILE:-}" ]; then
    options+=(--hostfile "$HOSTFILE" --master_port "${MASTER_PORT:-29500}")
    [ -z "${MASTER_ADDR:-}" ] || options+=(--master_addr "$MASTER_ADDR" --no_ssh_check)
    [ -z "${PROCESSES:-}" ] || options+=(--num_accelerators "$PROCESSES")
else
    free='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
    options+=(--master_port "${MASTER_PORT:-$("$python" -c "$free")}" --num_accelerators "${PROCESSES:-$gpus}")
fi
exec "$python" -m deepspeed.launcher.runner "${options[@]}" --module llamita.cli "$@"

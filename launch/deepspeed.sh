#!/usr/bin/env bash
# Starts one stage on several ranks with the deepspeed launcher:
#
#   launch/deepspeed.sh STAGE CONFIG.yaml [key=value …]
#   PROCESSES=8 launch/deepspeed.sh sft configs/real/sft.yaml deepspeed=configs/deepspeed/zero2.json \
#       inputs.model=runs/real/pretrain inputs.data=data output=runs/mine/sft
#   HOSTFILE=hosts launch/deepspeed.sh …     # lines `hostname slots=8`; needs pdsh here, ssh without a password to each
#
# PROCESSES    number of ranks on each machine; default: the slots in HOSTFILE; without HOSTFILE one rank per GPU,
#              or two ranks on the CPU if there is no GPU
# HOSTFILE     file that lists the machines; default: this machine only
# MASTER_ADDR  address of the first machine, only used with HOSTFILE; default: found by ssh
# MASTER_PORT  port of rank 0; default: a free port on one machine, 29500 with HOSTFILE
# PYTHON       Python interpreter; default: .venv of this checkout if it exists, otherwise python3
#
# Ctrl-C or SIGTERM: ranks that train finish their step, save a checkpoint and stop, with exit code 75. With HOSTFILE
# DeepSpeed's launcher exits with 1 and kills them after 30 seconds. Exit code 76: the loss diverged and the
# ranks rolled back to the newest checkpoint. In both cases run the same command again to resume.
#
# Without a DeepSpeed file (`deepspeed=FILE` here or in the YAML) the ranks use plain data parallelism.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,21s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
export PATH="$(dirname "$python"):$PATH" # ninja, which builds DeepSpeed's kernels, is installed beside python

gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
if [ "$gpus" -eq 0 ]; then
    export DS_ACCELERATOR=cpu
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    gpus=2
fi
export TORCH_CPP_LOG_LEVEL="${TORCH_CPP_LOG_LEVEL:-ERROR}" # the watchdog reports lost ranks, torch adds C++ stacks
options=(--no_local_rank --log_level warning)
launcher=llamita.runner.launched # DeepSpeed's, which on one machine waits until the ranks have saved
if [ -n "${HOSTFILE:-}" ]; then
    launcher=deepspeed.launcher.runner
    options+=(--hostfile "$HOSTFILE" --master_port "${MASTER_PORT:-29500}")
    [ -z "${MASTER_ADDR:-}" ] || options+=(--master_addr "$MASTER_ADDR" --no_ssh_check)
    [ -z "${PROCESSES:-}" ] || options+=(--num_accelerators "$PROCESSES")
else
    free='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
    options+=(--master_port "${MASTER_PORT:-$("$python" -c "$free")}" --num_accelerators "${PROCESSES:-$gpus}")
fi
exec "$python" -m "$launcher" "${options[@]}" --module llamita.cli "$@"

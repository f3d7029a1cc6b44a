#!/usr/bin/env bash
# Starts one stage in one process on this machine:
#
#   launch/local.sh STAGE CONFIG.yaml [key=value …]
#   launch/local.sh sft configs/smoke/sft.yaml inputs.model=runs/smoke/pretrain inputs.data=runs/smoke/world \
#       output=runs/mine/sft
#
# PYTHON  Python interpreter; default: .venv of this checkout if it exists, otherwise python3
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}
exec "$python" -m llamita.cli "$@"

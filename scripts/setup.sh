#!/usr/bin/env bash
# Make .venv from requirements/*.lock. A second call returns at once, because .venv carries a stamp named after the hash of the locks.
# RECSYS_EXTRAS=1 adds the optional packages (Delta Lake, Ray, Dagster, DuckDB for the benchmarks).
# CPU or CUDA flavour: whether nvidia-smi works decides, because fbgemm-gpu does not import without a driver. RECSYS_FLAVOUR=cpu|cuda overrides.
set -euo pipefail
cd "$(dirname "$0")/.."

flavour=${RECSYS_FLAVOUR:-$(nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)}
extras=${RECSYS_EXTRAS:+-r requirements/extras.lock}
stamp=.venv/.ready-$flavour-$(cat requirements/{base,extras,"$flavour"}.lock pyproject.toml "$0" | sha256sum | cut -c1-16)
[ -f "$stamp-extras" ] && exit 0
[ -z "$extras" ] && [ -f "$stamp" ] && exit 0

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' || {
  echo "setup: $("$python" --version) found, Python 3.11 or 3.12 is needed; name one with PYTHON=/path/to/python3.11 make ..." >&2; exit 2; }
[ "$(uname -s)" = Linux ] || { echo "setup: fbgemm-gpu has wheels for Linux only; run this in a Linux container" >&2; exit 2; }

echo "setup: making .venv ($flavour flavour, 1 to 3 minutes once)"
[ -x .venv/bin/python ] || "$python" -m venv .venv
rm -f .venv/.ready-*
pip=(.venv/bin/python -m pip -qq --disable-pip-version-check)
"${pip[@]}" install -c requirements/base.lock torch  # first and alone: pip takes whichever build it is configured to find
"${pip[@]}" install --no-deps -r requirements/base.lock -r "requirements/$flavour.lock" $extras
"${pip[@]}" install --no-deps --no-build-isolation --editable .
.venv/bin/python - <<'PY'
from importlib.metadata import version
import torch, torchrec, fbgemm_gpu, onnxruntime, polars, bentoml, mlflow  # noqa: F401 - the check is that they import together
print("setup:", ", ".join(f"{name} {version(name)}" for name in ("torch", "torchrec", "polars", "bentoml", "mlflow")))
PY
touch "$stamp${extras:+-extras}"

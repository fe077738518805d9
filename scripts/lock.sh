#!/usr/bin/env bash
# Maintainers: write requirements/*.lock anew from pyproject.toml. Needs network; review the diff before committing.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
python3 -m venv "$tool" && "$tool/bin/pip" install --quiet uv

# torchrec names the CUDA fbgemm-gpu in its metadata, so it and the two flavours stay out of the resolved set.
python3 - > "$tool/base.in" <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*(r for r in project["dependencies"] if not r.startswith("torchrec")), *project["optional-dependencies"]["dev"], "setuptools>=77", sep="\n")
PY
"$tool/bin/uv" pip compile --quiet --python-version 3.11 --no-annotate --no-header "$tool/base.in" ${LOCK_ARGS:-} \
  | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' | grep -vE '^(nvidia-[^m]|triton|cuda-)|^--' > requirements/base.lock
# The optional extras, beside what base.lock has.
python3 - > "$tool/extras.in" <<'PY'
import tomllib
extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]
print(*(r for name in ("delta", "ray", "postgres", "bench", "schedule", "verify") for r in extras[name]), sep="\n")
PY
"$tool/bin/uv" pip compile --quiet --python-version 3.11 --no-annotate --no-header -c requirements/base.lock "$tool/extras.in" \
  | grep -vxFf requirements/base.lock > requirements/extras.lock
# The endpoint alone, at the same versions.
python3 - > "$tool/serve.in" <<'PY'
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["serve"], sep="\n")
PY
"$tool/bin/uv" pip compile --quiet --python-version 3.11 --no-annotate --no-header \
  -c requirements/base.lock -c requirements/extras.lock "$tool/serve.in" > requirements/serve.lock
python3 - <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
torchrec = next(r for r in project["dependencies"] if r.startswith("torchrec"))
for flavour in ("cpu", "cuda"):
    with open(f"requirements/{flavour}.lock", "w") as file:
        print(torchrec, *project["optional-dependencies"][flavour], sep="\n", file=file)
PY

"""The container recipe, as far as it can be held without a Docker engine: what it copies, installs, runs and lets in."""

import json
import shlex
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from wire import send

from serving.__main__ import _parser, _settings
from serving.api.keys import Keys
from serving.run import running_service

ROOT = Path(__file__).parents[2]
LOCKED = dict(line.split("==") for line in (ROOT / "requirements/serve.lock").read_text().split())
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is not in requirements/serve.lock", name=name)
sys.meta_path.insert(0, Blocker())
"""


def instructions() -> list[list[str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_a_server_runs_on_the_containers_packages_alone(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server, in whose processes every installed package that the lock lacks cannot be imported."""
    known = {name.replace("-", "_") for name in LOCKED} | {"recsys"}
    blocked = {
        module
        for module, names in packages_distributions().items()
        if not {name.lower().replace("-", "_").replace(".", "_") for name in names} & known
    }
    assert {"torch", "polars", "mlflow", "torchrec", "onnx", "scipy", "typer"} <= blocked
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.format(blocked=blocked))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    probe = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, text=True)
    assert "is not in requirements/serve.lock" in probe.stderr
    with running_service(bundle_folder) as url:
        assert len(send(url, "POST", "/recommend", {"user_id": "user-1", "k": 5}).json["items"]) == 5
        assert send(url, "GET", "/metrics").status == send(url, "GET", "/docs.json").status == 200


def test_versions_are_those_of_the_other_locks() -> None:
    others = dict(
        line.split("==")
        for name in ("base", "cpu", "extras")
        for line in (ROOT / f"requirements/{name}.lock").read_text().split()
    )
    assert {name: (version, others[name]) for name, version in LOCKED.items() if others.get(name, version) != version} == {}


def test_only_what_serving_needs_gets_into_the_image() -> None:
    copied = [words.split()[0] for verb, words in instructions() if verb == "COPY"]
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(let_in) == ["recsys", "requirements/serve.lock", "serving"]
    assert all((ROOT / path).exists() for path in copied)


def test_it_does_not_run_as_root() -> None:
    verbs = [verb for verb, _ in instructions()]
    [user] = [words for verb, words in instructions() if verb == "USER"]
    assert user == "10001:10001"
    assert verbs.index("USER") > max(place for place, verb in enumerate(verbs) if verb == "RUN")


def test_its_command_is_one_that_there_is() -> None:
    found = dict(instructions())
    assert json.loads(found["ENTRYPOINT"]) == ["python", "-m", "serving"]
    arguments = _parser().parse_args(json.loads(found["CMD"]))
    assert _settings(arguments.live, arguments.set).keys is True


def test_compose_publishes_on_this_machine_only_and_its_command_works() -> None:
    found = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = found["services"]
    assert set(services) == {"endpoint", "redis", "mlflow"}
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "ports" not in services["redis"]
    arguments = _parser().parse_args(services["endpoint"]["command"])
    settings = _settings(arguments.live, arguments.set)
    assert (settings.keys, settings.workers, settings.state) == (True, 2, "redis://redis:6379/0")
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert {volume.split(":")[0] for volume in service["volumes"] if not volume.startswith("$")} <= set(found["volumes"])
        assert set(service["networks"]) <= set(found["networks"])


def test_keys_are_made_without_the_recsys_command(tmp_path: Path) -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "serving", *shlex.split(command), "--live", str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )

    token = run("add-key --name shop --scope read").stdout.strip()
    assert Keys(tmp_path).find(token.encode()) is not None
    assert run("revoke-key --name shop").returncode == 0
    again = run("revoke-key --name shop")
    assert again.returncode == 1
    assert again.stderr.startswith("error: there is no key 'shop'")
    assert "the keys are live, workers" in run("serve --bundle x --set wrkers=2").stderr

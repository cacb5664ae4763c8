"""What doctor finds, on machines that lack something."""

import os
import socket
from pathlib import Path

import pytest

from lmc_tune.cli import doctor
from lmc_tune.cli.doctor import Finding
from lmc_tune.sweeps import plan
from tests.sweeps.cases import lmc_tune, lmc_tune_json


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of Ray or MLflow, of this shell or of tests that ran before."""
    for name in list(os.environ):
        if name.startswith(("RAY_", "MLFLOW_")):
            monkeypatch.delenv(name)


def named(found: list[Finding], name: str) -> Finding:
    (one,) = (finding for finding in found if finding.name == name)
    return one


def test_an_ordinary_machine_is_in_order(tmp_path: Path) -> None:
    found = lmc_tune_json("doctor", "--data-root", tmp_path)
    checks = {check["name"]: check for check in found["checks"]}
    assert found["ok"]
    assert {"Python", "torch", "ray", "GPU", "CPU and memory", "data root", "port 5000", "runs", "cache"} <= set(checks)
    assert all(check["state"] != "wrong" for check in checks.values())
    assert checks["data set digits"]["said"] == "bundled"
    assert checks["data set mnist"] == {
        "name": "data set mnist",
        "state": "ok",
        "said": "not here: lmc-tune datasets get mnist",
        "fix": "",
    }


def test_what_is_wrong_is_said_with_its_fix_and_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "USPS").mkdir()
    (tmp_path / "USPS" / "usps.npz").touch()
    done = lmc_tune("doctor", "--data-root", tmp_path, MLFLOW_TRACKING_URI="localhost:5000")
    assert done.returncode == 1
    assert "wrong    data set usps: cannot be used\n         fix: " in done.stdout
    assert f"{tmp_path}/USPS/usps.npz is damaged" in done.stdout
    assert "wrong    MLFLOW_TRACKING_URI: the tracking URI localhost:5000 has no scheme" in done.stdout
    assert "\n2 things wrong, " in done.stdout


def test_a_library_of_another_version_or_none_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy<1", "typer>=0.15", "no-such-package>=2", "no-such-extra; extra == 'dev'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: needs)
    found = list(doctor._versions())
    assert (named(found, "numpy").state, named(found, "typer").state) == ("wrong", "ok")
    assert "and lmc-tune was made for <1" in named(found, "numpy").said
    assert named(found, "numpy").fix.endswith("-m pip install 'numpy<1'")
    assert named(found, "no-such-package").said == "not installed"
    assert not [finding for finding in found if finding.name == "no-such-extra"]


@pytest.mark.parametrize(
    ("gigabytes", "fix"), [(100, ""), (2, "lmc-tune sweep SPACE --workers 3"), (0.1, "--workers 1")]
)
def test_memory_for_fewer_workers_than_cores_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, fix: str
) -> None:
    monkeypatch.setattr(plan, "workers_here", lambda: 8)
    monkeypatch.setattr(doctor, "_available_bytes", lambda: int(gigabytes * 2**30))
    found = doctor._memory()
    assert found.state == ("warning" if fix else "ok")
    assert found.fix.endswith(fix)


def test_a_port_in_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(doctor, "MLFLOW_PORT", listener.getsockname()[1])
        assert doctor._port().state == "warning"
    assert doctor._port().state == "ok"


def test_folders_that_cannot_be_written_or_are_full_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    found = list(doctor._folders())
    assert (named(found, "runs").state, named(found, "cache").state) == ("ok", "warning")
    assert named(found, "cache").said.startswith(f"{tmp_path}/file/lmc-tune/prepared cannot be written to")
    (tmp_path / "runs").touch()
    assert named(list(doctor._folders()), "runs").state == "wrong"
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 2**80)
    assert named(list(doctor._folders()), "temporary files").state == "warning"


@pytest.mark.parametrize(
    ("settings", "name", "state", "said"),
    [
        ({}, "settings", "ok", "neither Ray nor MLflow"),
        ({"MLFLOW_TRACKING_URI": "http://me:secret@host:5000"}, "MLFLOW_TRACKING_URI", "warning", "runs go to http://"),
        ({"RAY_ADDRESS": "10.0.0.1:6379"}, "RAY_ADDRESS", "warning", "is ignored"),
        ({"RAY_AUTH_TOKEN": "secret"}, "RAY_AUTH_TOKEN", "ok", "set (not shown)"),
        ({"MLFLOW_STATIC_PREFIX": "/x"}, "MLFLOW_STATIC_PREFIX", "ok", "/x"),
    ],
)
def test_settings_are_shown_without_secrets(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], name: str, state: str, said: str
) -> None:
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    found = list(doctor._settings())
    assert named(found, name).state == state
    assert said in named(found, name).said
    assert not any("secret" in f"{finding.said}{finding.fix}" for finding in found)


def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._device().state == "ok"
    tool = tmp_path / "nvidia-smi"
    tool.touch()
    tool.chmod(0o755)
    assert doctor._device().state == "warning"

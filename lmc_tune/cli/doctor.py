"""``lmc-tune doctor``: what this machine offers, what is wrong with it, and how to fix that."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer

from lmc_tune.cli.listings import DataRoot, listed_datasets
from lmc_tune.cli.plainly import Json, print_json
from lmc_tune.cli.terminal import folded, width_of
from lmc_tune.core.counted import counted
from lmc_tune.core.printable import printable

State = Literal["ok", "warning", "wrong"]

MLFLOW_PORT = 5000
LEAST_FREE_BYTES = 2**30
# What an idle Ray takes, and a worker that has loaded torch.
_RAY_BYTES, _WORKER_BYTES = 700 * 2**20, 400 * 2**20
_SECRET = ("TOKEN", "PASSWORD", "SECRET", "KEY")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at, whether it is in order, what was found, and how to fix it (empty if ok)."""

    name: str
    state: State = "ok"
    said: str
    fix: str = ""


def doctor(*, data_root: DataRoot = None, json_: Json = False) -> None:
    """Check this machine and this installation.

    Versions, devices, memory, data sets, ports, folders and settings: each line is ok, a warning, or wrong, and says
    how to fix it. The exit code is 1 if something is wrong.
    """
    found = []
    for finding in findings(data_root):
        found.append(finding)
        if not json_:
            _print(finding)
    wrong = sum(finding.state == "wrong" for finding in found)
    warnings = sum(finding.state == "warning" for finding in found)
    if json_:
        print_json({"ok": not wrong, "checks": [asdict(finding) for finding in found]})
    elif wrong or warnings:
        typer.echo(f"\n{counted(wrong, 'thing')} wrong, {counted(warnings, 'warning')}")
    else:
        typer.echo("\neverything is in order")
    raise typer.Exit(1 if wrong else 0)


def _print(finding: Finding) -> None:
    width = width_of(sys.stdout)
    indent = " " * 9
    said = f"{finding.name}: {finding.said}"
    for text in (said, *([f"fix: {finding.fix}"] if finding.fix else [])):
        lines = (folded(text, width - len(indent)) if width else text).split("\n")
        first = f"{finding.state:<9}" if text is said else indent
        typer.echo(printable("\n".join([first + lines[0], *(indent + line for line in lines[1:])])))


def findings(data_root: Path | None = None) -> Iterator[Finding]:
    """Everything that is checked, one after the other."""
    yield from _versions()
    yield _device()
    yield _memory()
    yield from _datasets(data_root)
    yield _port()
    yield from _folders()
    yield from _settings()


def _versions() -> Iterator[Finding]:
    """Python, and every library that lmc-tune needs: installed, and of a version that it was made for."""
    from packaging.requirements import Requirement

    yield Finding(name="Python", said=f"{platform.python_version()} ({sys.executable})")
    yield Finding(name="lmc-tune", said=metadata.version("lmc-tune"))
    for text in metadata.requires("lmc-tune") or []:
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        install = f"{sys.executable} -m pip install '{needed.name}{needed.specifier}'"
        try:
            found = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            yield Finding(name=needed.name, state="wrong", said="not installed", fix=install)
            continue
        if needed.specifier.contains(found, prereleases=True):
            yield Finding(name=needed.name, said=found)
        else:
            said = f"{found}, and lmc-tune was made for {needed.specifier}"
            yield Finding(name=needed.name, state="wrong", said=said, fix=install)


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
        return Finding(name="GPU", said=f"{', '.join(names)} (CUDA {torch.version.cuda})")
    if shutil.which("nvidia-smi") is None:
        return Finding(name="GPU", said="none, so that pairs are trained on the CPU")
    why = f"torch {torch.__version__} is a build for the CPU" if torch.version.cuda is None else "torch cannot use it"
    return Finding(
        name="GPU",
        state="warning",
        said=f"this machine has nvidia-smi, but {why}: pairs are trained on the CPU",
        fix="install a torch with CUDA that suits the driver (pytorch.org/get-started), or check nvidia-smi",
    )


def _memory() -> Finding:
    from lmc_tune.sweeps.plan import workers_here

    workers = workers_here()
    there, free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _available_bytes()
    said = f"{counted(workers, 'core')}, {there / 2**30:.3g} GB of memory"
    said += f", {free / 2**30:.3g} GB of it available" if free is not None else ""
    fitting = max(1, int(((there if free is None else free) - _RAY_BYTES) / _WORKER_BYTES))
    if fitting >= workers:
        return Finding(name="CPU and memory", said=said)
    return Finding(
        name="CPU and memory",
        state="warning",
        said=f"{said}: too little for one worker per core",
        fix=f"lmc-tune sweep SPACE --workers {fitting}",
    )


def _available_bytes() -> int | None:
    """Memory that can be had without swapping, as Linux estimates it; None on other systems."""
    file = Path("/proc/meminfo")
    lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _datasets(data_root: Path | None) -> Iterator[Finding]:
    from lmc_tune.data.files import resolve_data_root

    root = resolve_data_root(data_root)
    yield Finding(name="data root", said=str(root))
    for one in listed_datasets(root):
        name = f"data set {one.facts.name}"
        if one.problem:
            yield Finding(name=name, state="wrong", said="cannot be used", fix=one.problem)
        else:
            yield Finding(name=name, said=one.here)


def _port() -> Finding:
    from lmc_tune.tracking.connection import TrackingError
    from lmc_tune.tracking.ui import check_port

    name = f"port {MLFLOW_PORT}"
    try:
        check_port(MLFLOW_PORT)
    except TrackingError:
        fix = f"lmc-tune ui DIR --port {MLFLOW_PORT + 1}"
        return Finding(name=name, state="warning", said="in use, and lmc-tune ui wants it", fix=fix)
    return Finding(name=name, said="free for lmc-tune ui")


def _folders() -> Iterator[Finding]:
    """Where a sweep writes: run folders, Ray's temporary files, prepared data."""
    from lmc_tune.data.files import can_prepare, prepared_folder
    from lmc_tune.errors import UserError
    from lmc_tune.sweeps.backend import check_scratch

    yield _folder("runs", Path("runs").absolute(), "change to a folder that can be written to, or give --out")
    try:
        folder = check_scratch()
    except UserError as error:
        yield Finding(name="temporary files", state="wrong", said=str(error), fix="set TMPDIR")
    else:
        yield _folder("temporary files", folder, "set TMPDIR to a folder on a larger disk")
    if can_prepare():
        yield _folder("cache", prepared_folder(), "set XDG_CACHE_HOME to a folder on a larger disk")
    else:
        said = f"{prepared_folder()} cannot be written to, so every worker loads its own copy of the data"
        fix = "set XDG_CACHE_HOME to a folder that can be written to"
        yield Finding(name="cache", state="warning", said=said, fix=fix)


def _folder(name: str, folder: Path, fix: str) -> Finding:
    """Whether a folder, which need not exist, can be written to, and has room."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(name=name, state="wrong", said=f"{there} cannot be written to", fix=fix)
    free = shutil.disk_usage(there).free
    said = f"{folder} can be written to, {free / 2**30:.3g} GB free"
    if free >= LEAST_FREE_BYTES:
        return Finding(name=name, said=said)
    return Finding(name=name, state="warning", said=said, fix=fix)


def _settings() -> Iterator[Finding]:
    """Variables of Ray and MLflow in the environment: what they change for lmc-tune."""
    from lmc_tune.tracking.connection import AddressError, check, without_credentials

    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        name = "MLFLOW_TRACKING_URI"
        try:
            check(uri)
        except AddressError as error:
            yield Finding(name=name, state="wrong", said=str(error), fix=f"correct it, or: unset {name}")
        else:
            said = f"runs go to {without_credentials(uri)}, not to the run folder's own store"
            yield Finding(name=name, state="warning", said=said, fix=f"if you do not mean that: unset {name}")
    if address := os.environ.get("RAY_ADDRESS"):
        shown = without_credentials(address)
        said = f"{shown} is ignored: a sweep runs on this machine unless --address is given"
        yield Finding(name="RAY_ADDRESS", state="warning", said=said, fix=f"to use it: --address {shown}")
    others = sorted(name for name in os.environ if name.startswith(("RAY_", "MLFLOW_")))
    others = [name for name in others if name not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")]
    for name in others:
        hidden = any(word in name for word in _SECRET)
        yield Finding(name=name, said="set (not shown)" if hidden else without_credentials(os.environ[name]))
    if not any(name.startswith(("RAY_", "MLFLOW_")) for name in os.environ):
        yield Finding(name="settings", said="neither Ray nor MLflow has any in the environment")

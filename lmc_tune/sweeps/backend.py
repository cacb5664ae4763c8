"""Ray Tune runs the cohorts: one trial each, on reused workers. The only module that imports ray."""

import gc
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmc_tune.core.counted import counted
from lmc_tune.errors import UserError
from lmc_tune.experiment import Cohort
from lmc_tune.experiment.space import SPACE_FILE
from lmc_tune.storage import FolderError, Place, StorageError
from lmc_tune.sweeps.plan import Slots
from lmc_tune.work.bench import Device, Workbench


class ClusterError(UserError):
    """A cluster that cannot be used; the message says what to do."""


_SECONDS_TO_CONNECT = 10.0

# The workers' C library reads these at its start; cluster.yaml and the like set them for their machines. Tune runs
# every trial in its own thread, and glibc gives each thread its own heap: these heaps kept 0.9 GB of what earlier pairs
# had freed. glibc also gave the pages of layers' outputs back to the system a thousand times a second and requested
# them again, which made MLP-L3's paths a fifth slower.
MEMORY = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver handles Ctrl-C, and says how to continue
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output ignores verbose=0 and prints tables
    **MEMORY,
}


def prepare_environment(address: str | None) -> None:
    """Set the variables that Ray reads when imported; a local Ray is bound to loopback and requires its own token.

    Raises:
        RuntimeError: if ray was imported before it could be bound to loopback.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address is not None:
        return
    if "ray" in sys.modules and os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") != "0":
        raise RuntimeError(
            "ray was imported before the sweep began, so it can no longer be kept on loopback; start the sweep "
            "before importing ray, or give the address of a running cluster"
        )
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # binds all of Ray's ports to loopback
    # Under `uv run` workers would be started by uv in a copy of the current folder, which need not have lmc-tune.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"  # loopback is open to all users of the machine
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def ray_session(
    workers: int, address: str | None = None, meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Path | None]:
    """Our own Ray instance on loopback, or a connection to the cluster at ``address``.

    The local instance sends no telemetry, binds every port to loopback, keeps its token in memory, and leaves no
    file behind when it ends in order.

    Args:
        workers: how many a local instance has.
        address: of a cluster.
        meanwhile: done in a thread while Ray starts, since a core is free for some seconds; Ray Tune is imported first.

    Yields:
        The folder of the local instance's logs, None for a cluster.

    Raises:
        RuntimeError: if ray was imported before it could be bound to loopback.
        FolderError: if there is no folder for its temporary files.
        ClusterError: if it does not start, or the cluster cannot be reached.
    """
    prepare_environment(address)
    scratch = _scratch() if address is None else None
    import ray  # noqa: F401, PLC0415 - after the environment is set, and before a thread imports the rest of it

    def work() -> None:
        from ray import tune  # noqa: F401, PLC0415

        meanwhile()

    aside = threading.Thread(target=work, name="meanwhile")
    try:
        aside.start()
        with _sigterm_kept():
            if scratch is not None:
                _start(workers, scratch)
            elif address is not None:
                _connect(address)
        yield Path(scratch, "ray", "session_latest", "logs") if scratch else None
    finally:
        aside.join()
        with _sigterm_kept():
            _shut_down()
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


_ERROR = re.compile(r"^.*(?:Error\b|ERROR|Exception\b).*$", re.MULTILINE)
# The longest path of a socket that Ray creates below its folder, and the limit of systems.
_SOCKET = "/lmc-12345678/ray/session_2026-12-31_23-59-59_123456_1234567/sockets/plasma_store"
_LONGEST_TMP = (103 if sys.platform == "darwin" else 107) - len(_SOCKET)


def _scratch() -> str:
    """A new folder for Ray's temporary files: in ``TMPDIR`` if its sockets fit there, else in ``/tmp``."""
    problems = []
    try:
        tmp = tempfile.gettempdir()  # the first of TMPDIR, /tmp and others that can be written
    except FileNotFoundError:
        tmp = os.environ.get("TMPDIR", "/tmp")  # noqa: S108
    for folder in dict.fromkeys((tmp, "/tmp")):  # noqa: S108 - a random name in it, closed to others
        if len(os.fsencode(folder)) > _LONGEST_TMP:
            problems.append(f"{folder} is longer than {_LONGEST_TMP} characters")
            continue
        try:
            return tempfile.mkdtemp(prefix="lmc-", dir=folder)
        except OSError as error:
            problems.append(f"{folder} cannot be written ({error.strerror})")
    raise FolderError(
        f"there is no folder for Ray's temporary files: {', and '.join(problems)}; set TMPDIR to a short one that can "
        f"be written"
    )


def check_scratch() -> Path:
    """The folder for a local Ray's temporary files, or an error as in :func:`ray_session` if there is none."""
    folder = Path(_scratch())
    folder.rmdir()
    return folder.parent


def _start(workers: int, scratch: str) -> None:
    import ray  # noqa: PLC0415 - after the environment is set

    try:
        ray.init(
            address="local",  # whatever RAY_ADDRESS says
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            # A folder inside it, because Ray opens its own folder to everyone, and Tune makes it log AWS keys.
            _temp_dir=f"{scratch}/ray",
            object_store_memory=80 * 2**20,  # about Ray's least; results travel through files
        )
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        free = shutil.disk_usage(scratch).free // 2**20
        raise ClusterError(
            f"Ray does not start on this machine: {said}. Its temporary files are in {Path(scratch).parent}, where "
            f"{free} MB are free; set TMPDIR to another folder if that is too little"
        ) from error


def why_no_worker(logs: Path | None) -> str:
    """Ray's explanation for workers that do not start, in words.

    logs: the folder of a local Ray's logs, None for a cluster.
    """
    if logs is None:
        return f"the cluster of {machines()} has no room for one; `ray status` there says what it waits for"
    for pattern in ("worker-*.err", "raylet.err", "runtime_env_setup-*.log"):  # a worker begins in the raylet's
        for file in logs.glob(pattern):
            said = _ERROR.findall(file.read_text(encoding="utf-8", errors="replace"))
            if said:
                return f"Ray's log {file} says: {said[-1]}"
    return f"Ray's logs in {logs} do not say why"


def check_address(address: str) -> None:
    """Raise ClusterError if nothing listens where a cluster should be; Ray itself would warn twenty times before.

    A name such as ``auto``, or an address of Ray Client, is left to Ray.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT):
            pass
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); check that it runs (ray status) and "
            f"that this machine may reach it"
        ) from error


def _connect(address: str) -> None:
    import ray  # noqa: PLC0415

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ClusterError(
            f"cannot connect to a Ray cluster at {address}: {str(error).splitlines()[0].rstrip('.')}. Check that it "
            f"runs (ray status), and that RAY_AUTH_MODE=token and its token are set here as they are there"
        ) from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray sets its own at its start, and the system's default at its end.

    A signal that Ray's own handler took, which raises SystemExit, is raised again for the handler that was there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def _shut_down() -> None:
    """Shut down Ray without ending the process.

    Ray calls exit() if any thread frees one of its objects while it shuts down, as the garbage collector does in
    whichever thread happens to allocate. What can be freed is freed here, and collection waits until Ray is gone.
    """
    import ray  # noqa: PLC0415

    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def has_token() -> bool:
    """Whether this process shows Ray a token; a cluster that was reached without one requires none."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"  # which Ray also sets itself, where it finds a token


def slots_of(device: Device, workers: int | None) -> Slots:
    """The slots of a sweep's cohorts: GPUs if Ray has any or they are requested, else cores.

    Args:
        device: ``cuda`` takes GPUs even if none is there yet: a cluster starts them when trials wait for them.
        workers: how many slots; by default, one for every GPU or core that is there.
    """
    import ray  # noqa: PLC0415

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = int(resources.get("GPU", 0)) if device != "cpu" else 0
    gpu = device == "cuda" or gpus > 0
    return Slots(number=workers or max(1, gpus if gpu else int(resources.get("CPU", 0))), gpu=gpu)


def machines() -> str:
    """The machines of Ray, in words."""
    import ray  # noqa: PLC0415

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cores, gpus = (int(sum(resources.get(kind, 0) for resources in alive)) for kind in ("CPU", "GPU"))
    counts = [(cores, "CPU core"), *([(gpus, "GPU")] if gpus else [])]
    return f"{counted(len(alive), 'machine')} ({', '.join(counted(*count) for count in counts)})"


def run_on_ray(cohorts: Sequence[Cohort], bench: Workbench, slots: Slots) -> list[str]:
    """Run every cohort once, one per slot at a time, in the order given, until one cannot use the store.

    Results go to the bench's store, written by the workers.

    Returns:
        What went wrong with the trials that did not end in order (a worker killed, a store that cannot be written);
        pairs that fail by themselves are rows, not errors.
    """
    from ray import tune  # noqa: PLC0415

    class End(tune.Stopper):
        """Ends the experiment after a trial with an error that all other trials would have too."""

        def __init__(self) -> None:
            self.told: list[str] = []

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
            self.told += [result["error"]] if "error" in result else []
            return False

        def stop_all(self) -> bool:
            return bool(self.told)

    end = End()
    with tempfile.TemporaryDirectory(prefix="lmc-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trial, cohorts=list(cohorts), bench=bench), {"cpu": 1, "gpu": int(slots.gpu)}
            ),
            param_space={"cohort": tune.grid_search(list(range(len(cohorts))))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=slots.number),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(Path(scratch).resolve()),
                verbose=0,
                stop=end,
                # The one that Tune would take in a notebook erases what the cell has shown so far.
                progress_reporter=tune.CLIReporter(),
            ),
        )
        with _quiet():
            return [*map(str, tuner.fit().errors), *end.told]


def _trial(config: dict[str, Any], cohorts: list[Cohort], bench: Workbench) -> None:
    # In the worker: the driver does without torch, whose import takes seconds.
    import torch  # noqa: PLC0415
    from ray import tune  # noqa: PLC0415

    from lmc_tune.work.cohort import run_cohort  # noqa: PLC0415

    # Two busy teams of threads on shared cores are many times slower than one thread each.
    torch.set_num_threads(1)
    try:
        _check_shared(bench.store.folder)
        results = run_cohort(cohorts[config["cohort"]], bench)
    except (StorageError, OSError):  # no other cohort could keep anything either
        tune.report({"error": traceback.format_exc()})
        raise
    tune.report({"pairs": len(results)})


def _check_shared(folder: Place) -> None:
    """Reject a run folder that this machine does not share with the driver's, before anything is trained."""
    if not (folder / SPACE_FILE).exists():
        raise StorageError(
            f"{folder} is not the same folder on all machines of the cluster: on {socket.gethostname()} it holds no "
            f"sweep. Keep the run where all of them see it: on NFS with --out, or with --storage s3://BUCKET/FOLDER"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Tune's progress messages and tracebacks off the terminal: failures are reported once, at the end."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

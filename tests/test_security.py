"""What SECURITY.md promises of the whole: of a running sweep, of the code, of what others may have written."""

import ast
import ipaddress
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lmc_tune.experiment.reading import parse_space
from tests.analysis.cases import write_run
from tests.sweeps.cases import PAIRS, SPACE, command, environment, lmc_tune, write_space
from tests.tracking.conftest import free_port, serving

ROOT = Path(__file__).resolve().parents[1]
# Secrets that a sweep gets by its environment, none of which may be found anywhere.
PASSWORD, TOKEN, AWS = "pa55-of-the-server", "70ken" * 8, "5ecret-of-the-cloud"
NAME = '"onload={{7*7}} <img src=x>'


def forbidden(tree: ast.AST) -> Iterator[str]:
    """What runs code that a file or a text holds, or may: unpickling, evaluating, shells, compiled code in caches."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code", "pty"}
    calls = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.compile"}
    calls |= {"torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "pd.read_pickle", "yaml.load"}
    calls |= {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "runpy.run_path", "runpy.run_module"}
    calls |= {"importlib.util.spec_from_file_location"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in modules)
        elif isinstance(node, ast.ImportFrom):
            taken = {f"{node.module}.{each.name}" for each in node.names} - {"pickle.UnpicklingError"}
            yield from ([node.module] if (node.module or "").split(".")[0] in modules and taken else [])
            yield from (f"{node.module}.{each.name}" for each in node.names if f"{node.module}.{each.name}" in calls)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
            weights_only = name == "torch.load" and keywords.get("weights_only") == "True"
            forbids = (name in calls and not weights_only) or _imports_by_value(name, node)
            yield from ([name] if forbids else [])
            yield from (
                f"{name}({word})" for word in ("shell", "allow_pickle") if keywords.get(word, "False") != "False"
            )


def _imports_by_value(name: str, call: ast.Call) -> bool:
    return name.endswith("import_module") and not isinstance(call.args[0], ast.Constant)


def test_no_code_is_taken_from_a_file_or_a_text() -> None:
    """One pickle is read, by a reader that makes arrays only; networks are imported by name for a sweep that is run,
    files that the options of `measure` name are run,
    and the report's sections as the modules of a package that the caller has imported.
    """
    files = [
        path for room in ("lmc_tune", "analysis", "benchmarks", "search_spaces") for path in (ROOT / room).rglob("*.py")
    ]
    assert len(files) > 100
    found = {
        (path.relative_to(ROOT).as_posix(), what) for path in files for what in forbidden(ast.parse(path.read_text()))
    }
    assert found == {
        ("analysis/report/section.py", "import_module"),
        ("lmc_tune/data/datasets.py", "pickle"),
        ("benchmarks/gpu.py", "import_module"),
        ("lmc_tune/__init__.py", "import_module"),  # one of the homes listed there
        ("lmc_tune/models/foreign.py", "importlib.import_module"),
        ("lmc_tune/averaging/named.py", "importlib.util.spec_from_file_location"),
    }


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "from pickle import UnpicklingError, loads",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "yaml.load(text, yaml.Loader)",
        "eval(text)",
        "import_module(text)",
        "os.system(text)",
    ],
)
def test_such_code_is_found(code: str) -> None:
    assert list(forbidden(ast.parse(code)))


def test_every_promise_names_a_test_that_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 20
    assert [each for each in named if f"def {each[1]}(" not in (ROOT / each[0]).read_text()] == []


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a sweep.

    listening: by ``psutil`` and, where it is installed, ``ss``: name, kind and address of every socket that waits for
    others, of all processes. commands: of all processes. names: of files of the run folder, while it ran and after.
    modes: of the folders in which others could have looked. answers: exit code by the token that Ray was asked with.
    """

    folder: Path
    server: Path
    home: Path
    told: str
    listening: dict[str, list[tuple[str, str, str]]]
    commands: list[str]
    names: set[str]
    modes: dict[str, int]
    answers: dict[str, int]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A sweep with an awkward name and all secrets, sent to a real server at an address with a password."""
    folder, port = tmp_path_factory.mktemp("sweep"), free_port()
    home, scratch = folder / "home", folder / "scratch"
    home.mkdir()
    scratch.mkdir()
    space = write_space(folder, SPACE + "members: keep\n")
    start = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    start += ["--backend-store-uri", f"sqlite:///{folder}/server/m.db", "--artifacts-destination", f"{folder}/server/a"]
    (folder / "server").mkdir()
    secrets = {
        "MLFLOW_TRACKING_URI": f"http://me:{PASSWORD}@127.0.0.1:{port}",
        "RAY_AUTH_MODE": "disabled",  # meant for some cluster
        "RAY_AUTH_TOKEN": TOKEN,
        "AWS_SECRET_ACCESS_KEY": AWS,
    }
    with serving(start, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, port):
        sweep = subprocess.Popen(
            command("sweep", space, "--name", NAME),
            cwd=folder,
            env=environment(**secrets, HOME=str(home), TMPDIR=str(scratch), LMC_TUNE_TEST=str(folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            run = folder / "runs" / NAME
            while not list(run.glob("shards/*.arrow")):
                assert sweep.poll() is None, sweep.communicate()
                time.sleep(0.05)
            processes = _of(sweep, folder)
            names = _names(run)
            listening = {"psutil": _by_psutil(processes)} | ({"ss": _by_ss(processes)} if shutil.which("ss") else {})
            commands = [" ".join(process.cmdline()) for process in processes]
            own = {match for line in commands for match in re.findall(r"/tmp/lmc-\w+", line)}  # noqa: S108
            folders = [*map(Path, own), *scratch.glob("lmc-*")]
            modes = {path.name.rpartition("-")[0]: path.stat().st_mode & 0o777 for path in folders}
            (gcs,) = {address for name, _, address in listening["psutil"] if name.startswith("gcs_server")}
            answers = {token: _ask(gcs.rpartition(":")[2], token) for token in ("", "another", TOKEN)}
        finally:
            if sys.exc_info()[0]:
                sweep.kill()
            told = sweep.communicate(timeout=240)[0]
    assert sweep.returncode == 0, told
    assert not any(path.exists() for path in folders)
    return Seen(
        folder=folder / "runs" / NAME,
        server=folder / "server",
        home=home,
        told=told,
        listening=listening,
        commands=commands,
        names=names | _names(run),
        modes=modes,
        answers=answers,
    )


def _of(parent: "subprocess.Popen[Any]", mark: Path) -> list[psutil.Process]:
    """A process, its descendants, and all that inherited its environment, whoever their parent is by now."""
    found = {parent.pid, *(child.pid for child in psutil.Process(parent.pid).children(recursive=True))}
    for process in psutil.process_iter():
        try:
            if process.environ().get("LMC_TUNE_TEST") == str(mark):
                found.add(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            pass
    return [psutil.Process(pid) for pid in found]


def _by_psutil(processes: list[psutil.Process]) -> list[tuple[str, str, str]]:
    return [
        (
            process.name(),
            "udp" if connection.status == psutil.CONN_NONE else "tcp",
            f"{connection.laddr.ip}:{connection.laddr.port}",
        )
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
    ]


def _by_ss(processes: list[psutil.Process]) -> list[tuple[str, str, str]]:
    lines = subprocess.run(["ss", "-H", "-tulpn"], capture_output=True, text=True, check=True).stdout.splitlines()
    pids = {str(process.pid) for process in processes}
    return [
        (line.split('"')[1], line.split()[0], line.split()[4])
        for line in lines
        if pids & set(re.findall(r"pid=(\d+)", line))
    ]


def _ask(port: str, token: str) -> int:
    """Ask Ray's central service for something, as any program of another user of the machine can."""
    code = f"from ray._raylet import GcsClient as Client; Client(address='127.0.0.1:{port}').internal_kv_keys(b'', b'')"
    mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment(**mode), capture_output=True, timeout=60, check=False
    ).returncode


def _names(run: Path) -> set[str]:
    return {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}


def _beyond_loopback(listening: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    def ip(address: str) -> str:
        return address.rpartition(":")[0].strip("[]").removeprefix("::ffff:").partition("%")[0]

    return [each for each in listening if ip(each[2]) == "*" or not ipaddress.ip_address(ip(each[2])).is_loopback]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["psutil", "ss"])
def test_nothing_of_a_sweep_listens_beyond_loopback(seen: Seen, how: str) -> None:
    if how not in seen.listening:
        pytest.skip("needs ss, of iproute2")
    found = seen.listening[how]
    assert {"gcs_server", "raylet"} <= {name for name, _, _ in found}, "Ray was running"
    assert _beyond_loopback(found) == []


def test_an_address_beyond_loopback_is_found() -> None:
    addresses = ["0.0.0.0:1", "*:2", "[::]:3", ":::4", "192.0.2.1:5", "[::ffff:192.0.2.1]:6", "127.0.0.1:7", "[::1]:8"]
    beyond = _beyond_loopback([("", "", address) for address in [*addresses, "::ffff:127.0.0.1:9"]])
    assert [address for _, _, address in beyond] == addresses[:6]


@pytest.mark.slow
def test_ray_answers_to_its_token_alone(seen: Seen) -> None:
    assert {token: code == 0 for token, code in seen.answers.items()} == {"": False, "another": False, TOKEN: True}
    assert not list(seen.home.rglob("*token*")), "none is left for others to read"


@pytest.mark.slow
def test_folders_in_tmp_are_closed_to_other_users_and_gone_in_the_end(seen: Seen) -> None:
    """Ray makes its own folder, with logs of the environment and its sockets, open to everyone: it lies in another."""
    assert seen.modes == {"lmc": 0o700, "lmc-tune": 0o700}


@pytest.mark.slow
def test_no_secret_is_in_a_file_a_command_line_or_what_is_told(seen: Seen) -> None:
    files = [path for folder in (seen.folder, seen.server, seen.home) for path in folder.rglob("*") if path.is_file()]
    assert {"results.parquet", "report.html", "sweep.json", "m.db"} <= {path.name for path in files}
    assert f"{PAIRS} pairs trained in this call" in seen.told
    for secret in (PASSWORD, TOKEN, AWS):
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
        assert not any(secret in line for line in [seen.told, *seen.commands])


@pytest.mark.slow
def test_names_of_files_are_our_own_and_stay_in_the_run_folder(seen: Seen) -> None:
    key = r"[0-9a-f]{16,}"
    tables = r"(results|barriers|paths|curves|layers)\.parquet|report\.html|space\.yaml|sweep\.json|\.lock"
    ours = rf"{tables}|members/{key}\.safetensors|shards/\.?{key}-[0-9a-f]{{8}}\.(arrow|running)(\.[0-9a-f]{8}\.part)?"
    assert [name for name in seen.names if not re.fullmatch(ours, name)] == []
    assert any(name.startswith("shards/") for name in seen.names)
    assert {path.name for path in seen.folder.parents[1].iterdir()} == {
        "home",
        "scratch",
        "server",
        "runs",
        "tiny.yaml",
    }
    assert [path.name for path in seen.folder.parent.iterdir()] == [NAME]


@pytest.mark.slow
def test_looking_at_a_copied_run_folder_or_at_its_space_runs_no_code_that_it_names(tmp_path: Path) -> None:
    """Neither a package beside it, of which a module is read for its hash, nor what Python itself has."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/__init__.py").write_text("open('imported', 'w').close()\n")
    (tmp_path / "beside/nets.py").write_text("import beside.more\n")
    (tmp_path / "beside/more.py").write_text("open('imported', 'w').close()\n")
    models = "[{factory: 'os:system', arguments: {command: 'touch called'}}, {factory: 'beside.nets:build'}]"
    text = SPACE.replace("model: {name: mlp, hidden: [8]}\n", "").replace("axes:\n", f"axes:\n  model: {models}\n")
    space = parse_space(text)
    write_run(tmp_path / "run", space.pairs(), space=space)
    marks = [tmp_path / "imported", tmp_path / "called"]

    def look(*arguments: str) -> str:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 2), done.stderr
        return done.stdout + done.stderr

    assert "32" in look("status", "run")
    assert "report.html" in look("report", "run")
    assert "32 runs created" in look("track", "run")
    shutil.copy(tmp_path / "run/space.yaml", tmp_path)
    assert "not known: to time the networks of its factories" in look("space", "run/space.yaml")
    assert "not known: to time the networks of its factories" in look("space", "space.yaml")
    with subprocess.Popen(
        command("ui", "run", "--port", str(free_port())),
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as ui:
        assert ui.stderr is not None
        assert any("MLflow UI over" in line for line in ui.stderr)
        ui.send_signal(signal.SIGTERM)
    assert not any(mark.exists() for mark in marks)
    look("space", "run/space.yaml", "--run-factories")
    assert all(mark.exists() for mark in marks), "else the test could not fail"


OPEN = """
import ray, sys
print(ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1]).address_info["gcs_address"])
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "said"), [("disabled", 1), ("token", 0)])
def test_a_cluster_that_asks_for_no_token_is_told_once(tmp_path: Path, mode: str, said: int) -> None:
    space, home = write_space(tmp_path), tempfile.mkdtemp(prefix="lmc-", dir="/tmp")
    own = {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": TOKEN, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", OPEN, home],
        env=environment(**own),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert cluster.stdout is not None
        address = next(line.strip() for line in cluster.stdout if re.fullmatch(r"[\d.]+:\d+\s*", line))
        arguments = ("sweep", space, "--out", tmp_path / "run", "--max-pairs", "1", "--no-report", "--address", address)
        done = lmc_tune(*arguments, **own)
    finally:
        cluster.communicate("")
        shutil.rmtree(home, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"the Ray cluster at {address} requires no token") == said

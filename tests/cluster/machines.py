"""Machines made of namespaces: each has its own network, processes, temporary folder, home and SSH server.

A switch connects them; nothing leads out of it. Whatever ends the tests, even SIGKILL, ends the machines too.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = Path(__file__).with_name("machine.sh")
_PROGRAMS = ("curl", "ip", "nsenter", "rsync", "setpriv", "ss", "ssh", "ssh-keygen", "/usr/sbin/sshd", "unshare")
_UNSHARE = ("unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
_SSHD = """
HostKey {own}/host_key
AuthorizedKeysFile {key}.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PidFile none
"""


def missing() -> str | None:
    """Why there can be no such machines here; None if there can."""
    if sys.platform != "linux" or os.geteuid():
        return "machines of namespaces need Linux and root"
    if absent := [program for program in _PROGRAMS if not shutil.which(program)]:
        return f"not installed: {', '.join(absent)} (apt-get install curl iproute2 openssh-server rsync)"
    network = "mount -t tmpfs tmpfs /run && ip link add name switch type bridge && ip link add type veth"
    tried = subprocess.run([*_UNSHARE, "sh", "-c", network], capture_output=True, text=True, check=False)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A running machine; ``first`` is its first process as seen from outside."""

    name: str
    address: str
    home: Path
    first: psutil.Process
    namespace: Path

    def enter(self, command: str) -> list[str]:
        """A command line that runs a shell's command there, as its user would who has logged in."""
        into = ["nsenter", f"--target={self.first.pid}", "--net", "--mount", "--ipc", "--pid"]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        shell = ["env", "--ignore-environment", f"--chdir={self.home}", f"HOME={self.home}", f"PATH={path}", "bash"]
        return [*into, *shell, "-c", f"source ~/.bashrc; {command}"]

    def run(self, command: str, seconds: float = 300) -> str:
        """What a command prints there; it must succeed."""
        done = subprocess.run(
            self.enter(command), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"{self.name}: {command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def processes(self) -> dict[int, str]:
        """Command lines by process id of what runs there, apart from SSH's server."""
        found = {}
        for process in psutil.process_iter():
            try:
                if _namespace(process) == self.namespace:
                    found[process.pid] = " ".join(process.cmdline())
            except (OSError, psutil.Error):  # has just ended
                continue
        return {pid: line for pid, line in found.items() if line and not line.startswith("sshd")}

    def power_off(self, switch: "Machine") -> None:
        """No word reaches the others, not even that its connections are closed."""
        _ip(switch, f"link set {self.name} down")
        self.first.kill()


@contextmanager
def machines(folder: Path, addresses: dict[str, str]) -> Iterator[dict[str, Machine]]:
    """Machines by name, all connected; the first one's network has the switch.

    The key ``folder/key`` opens each of them to root. Commands find the programs of this Python.

    Args:
        folder: all machines see it as it is.
        addresses: IPv4 address by name, of one network of 256.
    """
    key = folder / "key"
    _make_key(key)
    with ExitStack() as stack:
        made = [stack.enter_context(_machine(folder, *each)) for each in addresses.items()]
        switch, *others = made
        _ip(switch, "link set lo up")
        _ip(switch, "link add name switch type bridge")
        _ip(switch, f"address add {switch.address}/24 dev switch")
        _ip(switch, "link set switch up")
        for machine in others:
            _ip(switch, f"link add name {machine.name} type veth peer name eth0 netns {machine.first.pid}")
            _ip(switch, f"link set {machine.name} master switch up")
            _ip(machine, "link set lo up")
            _ip(machine, f"address add {machine.address}/24 dev eth0")
            _ip(machine, "link set eth0 up")
            # Leads nowhere; but without one Ray cannot tell its own address.
            _ip(machine, f"route add default via {switch.address}")
        yield {machine.name: machine for machine in made}


@contextmanager
def _machine(folder: Path, name: str, address: str) -> Iterator[Machine]:
    own = folder / name
    for part in ("home", "tmp"):
        (own / part).mkdir(parents=True)
    _make_key(own / "host_key")
    (own / "sshd_config").write_text(_SSHD.format(own=own, key=folder / "key"))
    paths = [f"export PATH={sys.prefix}/bin:$PATH", f"export PYTHONPATH={_ROOT}"]
    (own / "home" / ".bashrc").write_text("\n".join([*paths, ""]))
    kept = dict.fromkeys([_ROOT, Path(sys.prefix), Path(sys.base_prefix), folder, *map(Path, filter(None, sys.path))])
    with (own / "sshd.log").open("w") as log:
        launcher = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *_UNSHARE, "bash", _SCRIPT, own, *kept], stdout=log, stderr=log
        )
    first = None
    try:
        first = _first_process(launcher, own / "sshd.log")
        yield Machine(name=name, address=address, home=own / "home", first=first, namespace=_namespace(first))
    finally:
        launcher.kill()  # the first process goes with it, and all others of the machine go with that
        launcher.wait()
        if first:
            first.wait(30)


def _first_process(launcher: subprocess.Popen[bytes], log: Path) -> psutil.Process:
    """Wait until the machine lets somebody log in."""
    deadline = time.monotonic() + 30
    while "Server listening" not in log.read_text():
        assert launcher.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    (first,) = psutil.Process(launcher.pid).children()
    return first


def _namespace(process: psutil.Process) -> Path:
    """What processes of one machine share."""
    return Path(f"/proc/{process.pid}/ns/pid").readlink()


def _make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def _ip(machine: Machine, words: str) -> None:
    """Run ``ip`` in the network of a machine, but with our process ids."""
    subprocess.run(["nsenter", f"--target={machine.first.pid}", "--net", "ip", *words.split()], check=True)

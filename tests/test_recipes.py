"""The recipes of docs/recipes.md, run as they are printed, each in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# As `python FILE` and `lmc-tune ...`. With a CPU build of torch, only lmc-tune can import the torchvision of PyPI, and
# the recipes' libraries import it.
START = """
import runpy, sys
from lmc_tune.vision import import_torchvision

import_torchvision()
program, *sys.argv = sys.argv[1:]
if program == "lmc-tune":
    sys.argv.insert(0, program)
    runpy.run_module("lmc_tune", run_name="__main__")
sys.path.insert(0, "")
runpy.run_path(sys.argv[0], run_name="__main__")
"""
KINDS = {0: "Average", 3: "Average them, and recalibrate|Align", 4: "No:"}

pytestmark = pytest.mark.recipes


def sections() -> dict[str, list[tuple[str, str]]]:
    """Of every recipe its blocks: language and text, in order."""
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)[1:]
    return {
        title: re.findall(r"^```(\w+)\n(.+?)^```$", text, re.DOTALL | re.MULTILINE)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    settings = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", START, *command],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("title", ["Plain PyTorch", "Lightning", "timm", "Hugging Face", "Flower"])
def test_a_recipe_runs_as_it_is_printed(title: str, tmp_path: Path) -> None:
    """Its files are written, its commands give the exit codes and answers that they name, its notebook's lines too."""
    answers = []
    for language, text in sections()[title]:
        if language == "sh":
            answers += [answer for line in text.splitlines() if (answer := answer_of(line, tmp_path))]
        elif named := re.match(r"# (\w+\.py)\n", text):
            (tmp_path / named[1]).write_text(text)
        else:
            head, last = text.rstrip().rsplit("\n", 1)
            (tmp_path / "notebook.py").write_text(f"{head}\nprint({last})\n")
            done = run(["python", "notebook.py"], tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.partition("\n")[0] == answers[0]
    assert answers


def answer_of(line: str, folder: Path) -> str:
    """The answer that a command of the page prints, which is to be of the kind that its comment says; or nothing."""
    command, _, expected = line.partition("  # exit code ")
    codes = [int(code) for code in expected.split(" or ")] if expected else [0]
    done = run(shlex.split(command), folder)
    assert done.returncode in codes, done.stdout + done.stderr
    if not expected:
        return ""
    if command.startswith("lmc-tune"):
        assert re.match(KINDS[done.returncode], done.stdout), done.stdout
    return done.stdout.partition("\n")[0]


def test_the_federation_averages_the_clients_of_one_basin(tmp_path: Path) -> None:
    blocks = [text for language, text in sections()["Flower"] if language == "python"]
    for text in blocks:
        name = text.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    (tmp_path / "server.py").write_text(
        blocks[1]
        + "first, second = (reply.content['arrays'].to_torch_state_dict() for reply in replies[:2])\n"
        + "for name, entry in arrays.to_torch_state_dict().items():\n"
        + "    torch.testing.assert_close(entry, (first[name] + second[name]) / 2)\n"
        + "print(len(first), 'entries are the mean of two clients')\n"
    )
    done = run(["python", "server.py"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "round 1: averaging 1, 2. Not all of them: 1 and 2 lie in one basin, others do not."
    assert said[-1] == "6 entries are the mean of two clients"


def test_every_recipe_of_the_page_is_run() -> None:
    assert set(sections()) == {"Plain PyTorch", "Lightning", "timm", "Hugging Face", "Flower"}

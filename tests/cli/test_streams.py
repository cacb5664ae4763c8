"""Standard streams that are closed, or that nobody reads."""

import subprocess
import sys
from pathlib import Path

import pytest

_WORK = """
import os, sys
from lmc_tune.cli.streams import prepare_streams
prepare_streams()
file = open("table", "w")
print("for", file.fileno(), "see below", file=sys.stderr, flush=True)
os.write(2, b"of a library")
print("again", file=sys.stderr)
file.write(f"{file.fileno()}")
"""


@pytest.mark.parametrize("closed", ["2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-", "2>/dev/full", "2> >(exec true)"])
def test_no_file_takes_the_place_of_a_stream_and_no_line_costs_the_work(tmp_path: Path, closed: str) -> None:
    done = subprocess.run(["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, _WORK], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert int((tmp_path / "table").read_text()) > 2


def test_what_somebody_reads_is_told(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _WORK], capture_output=True, text=True, check=True, cwd=tmp_path)
    number = (tmp_path / "table").read_text()
    assert done.stderr == f"for {number} see below\nof a libraryagain\n"

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cases import PAIRS, Sweep


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep that nothing disturbed."""
    sweep = Sweep(home=tmp_path_factory.mktemp("reference")).prepare()
    assert sweep.again()["trained"] == PAIRS
    return sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """A sweep to be disturbed."""
    made = Sweep(home=tmp_path / "disturbed").prepare()
    yield made
    made.end()

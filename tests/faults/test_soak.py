from pathlib import Path

import pytest

from tests.faults.soak import CELLS, soak


@pytest.mark.slow
@pytest.mark.faults
def test_a_short_soak_ends_with_every_pair_once(tmp_path: Path) -> None:
    figures = soak(tmp_path, replicates=5, reference_replicates=1, seed=0, minutes=8)
    assert figures.pairs == 5 * CELLS
    assert figures.compared == CELLS
    assert figures.kills_of_workers + figures.kills_of_drivers > 0

from pathlib import Path

import pytest

from tests.faults.soak import CELLS, soak


@pytest.mark.slow
@pytest.mark.faults
def test_a_short_soak_ends_with_every_pair_once(tmp_path: Path) -> None:
    figures = soak(tmp_path, replicates=20, reference_replicates=4, seed=0, minutes=8)
    assert figures.pairs == 20 * CELLS
    assert figures.compared == 4 * CELLS
    assert figures.kills_of_workers + figures.kills_of_drivers > 0

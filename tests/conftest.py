import lzma
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from lmc_tune.data.datasets import Dataset, load_dataset
from lmc_tune.experiment import DatasetSpec
from lmc_tune.tables.store import Store
from lmc_tune.work.bench import Workbench
from tests.cases import MEASURE

settings.register_profile(
    "laws", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("laws")
torch.set_num_threads(1)
# A shell that runs the tests in the background has them ignore Ctrl-C, and so have their children, which wait for one.
signal.signal(signal.SIGINT, signal.default_int_handler)

_PACKED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is written to the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root with the real MNIST, Fashion-MNIST, USPS and CIFAR-10."""
    packed = Path(os.environ.get("LMC_TUNE_TEST_DATA", _PACKED))
    if not packed.is_dir():
        pytest.skip(f"the packed data sets are not in {packed}; set LMC_TUNE_TEST_DATA to the folder of unpack.py")
    root = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, packed / "unpack.py", root], check=True)
    shutil.copytree(packed / "USPS", root / "USPS")
    yield root
    shutil.rmtree(root)  # 290 MB; pytest would keep three of them


@pytest.fixture(scope="session")
def kjv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The King James Bible, a verse a line: 23 145 of the Old Testament, then the New."""
    packed = Path(os.environ.get("LMC_TUNE_TEST_DATA", _PACKED)) / "KJV" / "kjv.txt.xz"
    if not packed.is_file():
        pytest.skip(f"there is no {packed}; set LMC_TUNE_TEST_DATA to the folder of the packed data sets")
    path = tmp_path_factory.mktemp("kjv") / "kjv.txt"
    path.write_bytes(lzma.decompress(packed.read_bytes()))
    return path


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """All of the bundled digits; treat as read-only."""
    return load_dataset(DatasetSpec(), Path())


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Workbench]:
    """A workbench on a fresh run folder; one folder per ``name``."""

    def make(name: str = "run", **settings_: object) -> Workbench:
        settings = {"measure": MEASURE} | settings_
        return Workbench(store=Store(tmp_path / name), data_root=tmp_path, **settings)  # type: ignore[arg-type]

    return make

"""What Ray has, in our words."""

import pytest
import ray

from lmc_tune.storage import StorageError, write_text
from lmc_tune.sweep.backend import _check_shared, machines, slots_of
from lmc_tune.sweep.plan import Slots

GPUS = {"CPU": 10.0, "GPU": 3.0}
NONE_YET = {"CPU": 6.0}
EMPTY: dict[str, float] = {}


@pytest.mark.parametrize(
    ("there", "device", "workers", "slots"),
    [
        (NONE_YET, "auto", None, Slots(number=6)),
        (NONE_YET, "auto", 2, Slots(number=2)),
        (NONE_YET, "cuda", 4, Slots(number=4, gpu=True)),
        (NONE_YET, "cuda", None, Slots(number=1, gpu=True)),
        (GPUS, "auto", None, Slots(number=3, gpu=True)),
        (GPUS, "auto", 2, Slots(number=2, gpu=True)),
        (GPUS, "cuda", 8, Slots(number=8, gpu=True)),
        (GPUS, "cpu", None, Slots(number=10)),
        (EMPTY, "auto", None, Slots(number=1)),
    ],
)
def test_a_sweep_takes_what_is_there_or_what_is_asked_for(monkeypatch, there, device, workers, slots):
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    assert slots_of(device, workers) == slots


def test_machines_that_are_gone_are_not_counted(monkeypatch):
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 1.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert machines() == "2 machines (10 CPU cores, 1 GPU)"
    monkeypatch.setattr(ray, "nodes", lambda: nodes[:1])
    assert machines() == "1 machine (2 CPU cores)"


def test_a_folder_that_is_not_the_drivers_is_refused_before_training(tmp_path):
    with pytest.raises(StorageError, match=r"is not the same folder on all machines.*--storage s3://"):
        _check_shared(tmp_path)
    write_text(tmp_path / "space.yaml", "")
    _check_shared(tmp_path)

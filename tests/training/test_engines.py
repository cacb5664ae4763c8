"""Which engine trains a pair."""

import pytest
import torch

from lmc_tune.experiment import GroupSpec, MemberSpec
from lmc_tune.training.engines import engine_for

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def pair(model: dict, batch_size: int = 32, engine: str = "auto", dataset: str = "mnist") -> MemberSpec:
    group = GroupSpec.model_validate(
        {
            "dataset": {"name": dataset},
            "model": model,
            "train": {"lr": 0.1, "batch_size": batch_size, "epochs": 1, "engine": engine},
            "shift": {},
            "replicate": 0,
        }
    )
    return group.members["a"]


@pytest.mark.parametrize(
    ("asked", "engine"),
    [
        (pair({"hidden": [32]}), "stacked"),
        (pair({"hidden": [64, 64], "norm": "batch"}, dataset="digits"), "stacked"),
        (pair({"hidden": [512]}), "loop"),  # its weights alone fill the cache
        (pair({"hidden": [32]}, batch_size=512), "loop"),
        (pair({"hidden": [40]}), "loop"),  # its result would depend on its place in the stack
        (pair({"hidden": [32]}, batch_size=18), "loop"),
        (pair({"name": "resnet", "depth": 8}), "loop"),
        (pair({"name": "resnet", "depth": 8}, engine="stacked"), "stacked"),
        (pair({"hidden": [32]}, engine="loop"), "loop"),
    ],
)
def test_on_a_cpu_small_aligned_perceptrons_are_stacked_unless_the_space_says_otherwise(asked, engine):
    assert engine_for(asked, CPU) == engine


def test_on_a_gpu_everything_is_stacked_but_a_users_own_network():
    assert engine_for(pair({"name": "resnet", "depth": 8}), GPU) == "stacked"
    assert engine_for(pair({"hidden": [33]}, batch_size=17), GPU) == "stacked"
    assert engine_for(pair({"factory": "mine:build"}), GPU) == "loop"

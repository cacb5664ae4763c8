import pytest
import torch
from torch import nn

from lmc_tune.models.stack import evaluates_faster_stacked
from tests.measurement.cases import NETWORKS, image_network


class Own(nn.Module):
    def forward(self, inputs):
        return inputs


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_of_the_registry_are_stacked_on_a_gpu_alone(kind):
    model = image_network(kind, 0)
    assert evaluates_faster_stacked(model, torch.device("cuda"))
    assert not evaluates_faster_stacked(model, torch.device("cpu"))


def test_a_network_with_a_layer_of_ones_own_is_not():
    assert not evaluates_faster_stacked(nn.Sequential(nn.Flatten(), Own()), torch.device("cuda"))

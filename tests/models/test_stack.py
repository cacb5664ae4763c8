import torch
from torch import nn

from lmc_tune.models.stack import evaluates_faster_stacked
from tests.measurement.cases import image_network


def test_networks_are_evaluated_as_stacks_on_a_gpu_alone_and_a_users_own_never():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    own = nn.Sequential(image_network("vgg", 0), nn.Softplus())  # a layer that nothing is known of
    assert [evaluates_faster_stacked(image_network("vgg", 0), device) for device in (cpu, gpu)] == [False, True]
    assert [evaluates_faster_stacked(own, device) for device in (cpu, gpu)] == [False, False]

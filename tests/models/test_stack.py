import torch
from torch import nn

from lmc_tune.models.stack import evaluates_faster_stacked
from tests.measurement.cases import image_network


def test_networks_of_known_layers_are_evaluated_as_stacks_on_a_gpu_alone_and_others_never():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    known, other = image_network("vgg", 0), nn.Sequential(image_network("vgg", 0), nn.Softplus())
    assert [evaluates_faster_stacked(known, device) for device in (cpu, gpu)] == [False, True]
    assert [evaluates_faster_stacked(other, device) for device in (cpu, gpu)] == [False, False]

"""The networks that are trained and measured, by name."""

from dataclasses import dataclass

import torch
from torch import nn

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import MlpSpec, ModelSpec, ResnetSpec, VggSpec
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.models.registry import build_model


@dataclass(frozen=True, kw_only=True)
class Network:
    """An architecture, and a data set with the kind of images that it takes."""

    spec: ModelSpec
    dataset: str = "mnist"

    @property
    def convolutional(self) -> bool:
        return not isinstance(self.spec, MlpSpec)

    def build(self, seed: int, device: torch.device | str = "cpu") -> nn.Module:
        facts = DATASETS[self.dataset]
        return build_model(self.spec, facts.shape, facts.n_classes, seed, device)

    def examples(self, n: int, generator: torch.Generator) -> Examples:
        """Random examples, on the CPU."""
        facts = DATASETS[self.dataset]
        return Examples(
            inputs=torch.randn(n, *facts.shape, generator=generator),
            labels=torch.randint(facts.n_classes, (n,), generator=generator),
        )


NETWORKS = {
    "small MLP": Network(spec=MlpSpec(hidden=(32,))),
    "MLP-L1": Network(spec=MlpSpec(hidden=(512,))),
    "MLP-L3": Network(spec=MlpSpec(hidden=(512, 512, 512))),
    "VGG-11": Network(spec=VggSpec(), dataset="cifar10"),
    "VGG-11 batch norm": Network(spec=VggSpec(norm="batch"), dataset="cifar10"),
    "ResNet-20": Network(spec=ResnetSpec(), dataset="cifar10"),
    "ResNet-18": Network(spec=ResnetSpec(depth=18), dataset="cifar10"),
    "MLP-12": Network(spec=MlpSpec(hidden=(256,) * 11)),
    "ResNet-18 without norm": Network(spec=ResnetSpec(depth=18, norm="none"), dataset="cifar10"),
}

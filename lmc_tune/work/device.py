"""The device that pairs are trained and measured on."""

import torch

from lmc_tune.work.bench import Device


def exact_device(name: Device) -> torch.device:
    """The device of this name, its kernels made exact and deterministic for the whole process."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # Else convolutions take a mantissa of ten bits, and sum in any order; products as well, where the environment
        # says so (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE), as in NVIDIA's containers.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return torch.device(name)

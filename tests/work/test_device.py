import os
import subprocess
import sys


def test_products_on_a_gpu_are_exact_whatever_the_environment_allows():
    code = """
import torch
from lmc_tune.work.device import exact_device
print(torch.backends.cuda.matmul.allow_tf32)
exact_device("cuda")
print(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic)
"""
    environment = {**os.environ, "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}  # as NVIDIA's containers set it
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == ("True\nFalse False True\n", 0), run.stderr

from lmc_tune.vision import import_torchvision


def test_torchvision_imports_beside_any_build_of_torch_and_only_once():
    torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    assert {"MNIST", "FashionMNIST", "CIFAR10"} <= set(dir(torchvision.datasets))

"""BigEarthNet through torchgeo: only the requested patches."""

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmc_tune.data.files import DamagedDataError, file_md5
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.vision import import_torchvision

# Sentinel-2 stores a reflectance of 1 as this number.
REFLECTANCE_1 = 10_000


def open_patches(root: Path, split: Literal["train", "test"]) -> Any:
    """A torchgeo data set of the Sentinel-2 patches below ``root``; nothing is read yet."""
    return _data_set()(str(root), split=split, bands="s2", num_classes=DATASETS["bigearthnet"].n_classes)


def read_patches(patches: Any, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The opened patches at ``indices``, in that order.

    Bands of 20 and 60 metres are enlarged bilinearly to the 10 metres of the others.

    Returns:
        Reflectances (n, height, width, bands), in units of 1/10 000 and at most 1, and labels (n, 19) of 0 and 1.

    Raises:
        DamagedDataError: naming a patch that lacks a band or its labels, or cannot be read.
    """
    facts = DATASETS["bigearthnet"]
    images = np.empty((len(indices), *facts.shape), np.uint16)
    labels = np.empty((len(indices), facts.n_classes), np.int64)
    for at, index in enumerate(indices.tolist()):
        folder = patches.folders[index]["s2"]
        try:
            patch = patches[index]
        except (OSError, ValueError, LookupError) as error:
            raise DamagedDataError(_damaged(folder, str(error).strip() or type(error).__name__)) from error
        image = patch["image"].numpy()
        if image.shape != facts.shape:
            raise DamagedDataError(_damaged(folder, f"it has {len(image)} bands"))
        images[at] = image.clip(0, REFLECTANCE_1)
        labels[at] = patch["label"].numpy()
    return images.transpose(0, 2, 3, 1), labels


def download_patches(root: Path) -> None:
    """Download, verify and unpack the Sentinel-2 patches and the lists of their splits, unless they are there.

    Raises:
        DamagedDataError: if an existing archive is not the published one; torchgeo would unpack it unchecked.
    """
    data_set = _data_set()
    published = data_set.metadata["s2"]
    archive = root / published["filename"]
    if archive.is_file() and (found := file_md5(archive)) != published["md5"]:
        raise DamagedDataError(f"{archive} is damaged: its md5 is {found}, not {published['md5']}. Delete it")
    data_set(str(root), bands="s2", download=True, checksum=True)


def _damaged(folder: str, reason: str) -> str:
    bands = DATASETS["bigearthnet"].shape[0]
    return (
        f"the patch {folder} cannot be read: {reason}. It should hold {bands} .tif files, one per band, and one .json "
        f"file with its labels; unpack it again from BigEarthNet-S2-v1.0.tar.gz"
    )


def _data_set() -> Any:
    import_torchvision()  # first, because it fixes torchgeo's own import
    return import_module("torchgeo.datasets").BigEarthNet

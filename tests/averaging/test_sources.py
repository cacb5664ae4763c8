"""What ``--data`` and ``--train`` name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lmc_tune.averaging.data import split_of
from lmc_tune.averaging.sources import source_of, training_source
from lmc_tune.data.datasets import load_dataset
from lmc_tune.errors import UserError
from lmc_tune.experiment import TextSpec
from lmc_tune.experiment.text import read_content
from tests.averaging.cases import CPU, digits


def test_a_data_set_gives_both_kinds(tmp_path):
    found = source_of("digits", tmp_path, None)
    assert torch.equal(found.test.inputs, digits().test.inputs)
    assert torch.equal(found.train.labels, digits().train.labels)
    assert found.n_classes == 10


def test_a_limit_is_stratified(tmp_path):
    found = source_of("digits", tmp_path, 100)
    for part in (found.test, found.train):
        assert len(part) == 100
        assert torch.bincount(part.labels).tolist() == pytest.approx([10] * 10, abs=1)
    again = source_of("digits", tmp_path, 100)
    assert torch.equal(found.test.inputs, again.test.inputs)


def test_a_data_set_may_be_written_as_in_yaml(tmp_path):
    raw = source_of("{name: digits, normalise: false, test: 50}", tmp_path, None).test
    assert len(raw) == 50
    assert 0 <= float(raw.inputs.min()) < float(raw.inputs.max()) <= 1


@pytest.mark.parametrize(("inputs", "labels"), [("inputs", "labels"), ("x_test", "y_test")])
def test_arrays_are_read_as_they_are(tmp_path, inputs, labels):
    images = np.arange(24, dtype=np.uint8).reshape(4, 1, 2, 3)
    np.savez(tmp_path / "a.npz", **{inputs: images, labels: np.array([[0], [1], [2], [1]])})
    found, truth = source_of(str(tmp_path / "a.npz"), tmp_path, None).test
    torch.testing.assert_close(found, torch.from_numpy(images).float() / 255)
    assert truth.tolist() == [0, 1, 2, 1]
    np.savez(tmp_path / "b.npz", inputs=np.array([[1, 2], [3, 4]]), labels=np.array([0.5, 1.5]))
    tokens, targets = training_source(str(tmp_path / "b.npz"), tmp_path, None)
    assert tokens.dtype == torch.int64
    assert targets.dtype == torch.float32


def test_training_arrays_of_keras_are_found(tmp_path):
    arrays = {
        "x_train": np.zeros((3, 2)),
        "y_train": np.zeros(3, int),
        "x_test": np.ones((4, 2)),
        "y_test": np.ones(4, int),
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    assert len(source_of(str(tmp_path / "mnist.npz"), tmp_path, None).test[0]) == 4
    assert len(training_source(str(tmp_path / "mnist.npz"), tmp_path, None)[0]) == 3


def test_images_are_shuffled_and_scaled_as_imagenets_networks_take_them(tmp_path):
    for label, colour in (("cats", 255), ("dogs", 0)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (300, 260), (colour,) * 3).save(tmp_path / "images" / label / f"{number}.png")
    images, labels = source_of(str(tmp_path / "images"), tmp_path, 6).test
    assert images.shape == (6, 3, 224, 224)
    assert 0 < int(labels.sum()) < 6
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(images[labels == 0][0][:, 0, 0], white)


def test_a_loader_is_called_and_read(tmp_path):
    (tmp_path / "load.py").write_text(
        "import torch\ndef batches():\n    for at in range(3):\n"
        "        yield torch.full((2, 4), float(at)), torch.tensor([at, at])\n"
    )
    split = split_of(source_of(f"{tmp_path}/load.py:batches", tmp_path, 5).test, device=CPU, batch_size=8, limit=5)
    assert split.examples.labels.tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("digts", r"--data digts: no such data set or file; did you mean digits\? Or give a folder"),
        ("nothing/like/it", r"no such data set or file; there are digits, mnist"),
        ("{name: digits, normalis: false}", r"unknown key 'normalis'; did you mean normalise\?"),
        ("{name: digts}", r"--data digts: no such data set; did you mean digits\?"),
        ("missing.npz", "there is no file missing.npz"),
        ("missing.py:f", "there is no file missing.py"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path, spec, said):
    with pytest.raises(UserError, match=said):
        source_of(spec, tmp_path, None)


def test_arrays_with_other_names_or_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", images=np.ones(3))
    with pytest.raises(UserError, match="has images; it should have inputs and labels or x_test and y_test"):
        source_of(str(tmp_path / "other.npz"), tmp_path, None)
    np.savez(tmp_path / "objects.npz", inputs=np.array([{}], dtype=object), labels=np.ones(1))
    with pytest.raises(UserError, match=r"is no \.npz file of plain arrays"):
        source_of(str(tmp_path / "objects.npz"), tmp_path, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is no folder of images: it should hold a folder per class"):
        source_of(str(tmp_path / "empty"), tmp_path, None)
    (tmp_path / "number.py").write_text("def f():\n    return 3\n")
    with pytest.raises(UserError, match="returned int; let it return batches"):
        source_of(f"{tmp_path}/number.py:f", tmp_path, None)
    with pytest.raises(UserError, match=r"--train digts: no such data set or file; did you mean digits"):
        training_source("digts", tmp_path, None)
    assert torch.equal(training_source("digits", tmp_path, None).labels, digits().train.labels)


def test_a_text_is_read_from_the_current_folder_and_measured_per_token(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("abcab" * 60)
    found = source_of("{name: text, path: corpus.txt, context: 4}", tmp_path, None)
    expected = load_dataset(read_content(TextSpec(path=str(tmp_path / "corpus.txt"), context=4)), tmp_path)
    for one, other in ((found.test, expected.test), (found.train, expected.train)):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)
    assert found.n_classes == 3
    some = source_of("{name: text, path: corpus.txt, context: 4}", tmp_path, 5)
    assert len(some.test) == len(some.train) == 5
    Path("corpus.txt").write_text("abcab" * 2000)
    assert source_of("corpus.txt", tmp_path, None).test.inputs.shape == (7, 128)
    for wrong, said in (
        ("other.txt", "there is no file .*other.txt"),
        ("{name: text, path: corpus.txt, test: 3}", "a text is measured in whole; leave train, test and validation"),
        ("{name: text, path: corpus.txt, normalise: true}", "unknown key 'normalise'; a text has none"),
    ):
        with pytest.raises(UserError, match=said):
            source_of(wrong, tmp_path, None)

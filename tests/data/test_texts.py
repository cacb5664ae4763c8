"""Windows of text: every token is followed by the next one, and nothing that is held out is trained on."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.data.datasets import load_dataset
from lmc_tune.data.examples import Examples, Joined, Part, at_once, spread
from lmc_tune.data.files import DataError
from lmc_tune.data.prepared import open_dataset
from lmc_tune.data.texts import read_windows
from lmc_tune.experiment import TextSpec
from lmc_tune.experiment.text import read_content, read_texts

NOWHERE = Path("/nowhere")


def spec(path: Path, **fields) -> TextSpec:
    return read_content(TextSpec(path=str(path), **({"context": 4} | fields)))


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=60, max_size=200),
    context=st.integers(1, 5),
    held_out=st.sampled_from([0.2, 0.5]),
    tokens=st.sampled_from(["characters", "bytes"]),
)
def test_windows_read_back_are_the_text(tmp_path_factory, text, context, held_out, tokens):
    path = tmp_path_factory.getbasetemp() / "corpus.txt"
    path.write_bytes(text.encode())
    one = spec(path, context=context, held_out=held_out, tokens=tokens)
    texts = read_texts(one)
    whole = text if tokens == "characters" else text.encode().decode("latin-1")
    for examples, part in zip(read_windows(one), (texts.texts["first"].train, texts.texts["first"].test), strict=True):
        assert examples.inputs.shape == examples.labels.shape == ((len(part) - 1) // context, context)
        n = examples.inputs.numel()
        symbols = [*texts.symbols, None]  # the last is any that the training text lacks
        for tokens_, expected in ((examples.inputs, part[:n]), (examples.labels, part[1 : n + 1])):
            read = [symbols[token] for token in tokens_.flatten().tolist()]
            assert read == [symbol if symbol in texts.symbols else None for symbol in expected]
    assert texts.texts["first"].train + texts.texts["first"].test == whole


def test_subsets_are_disjoint_windows_and_the_end_is_held_out(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("".join(map(chr, range(33, 33 + 900))))  # every character once: a window knows where it was
    dataset = load_dataset(spec(path, train=80, validation=20, test=10), NOWHERE)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [80, 20, 10]
    starts = torch.cat([dataset.train.inputs[:, 0], dataset.validation.inputs[:, 0]])
    assert len(starts.unique()) == 100
    assert (starts % 4 == 0).all()
    assert int(dataset.train.labels.max()) < 810
    assert set(dataset.test.inputs.flatten().tolist()) == {810}, "none of these was seen in training"
    assert dataset.n_classes == 811
    again = load_dataset(spec(path, train=80, validation=20, test=10), NOWHERE)
    assert torch.equal(again.train.inputs, dataset.train.inputs)
    assert torch.equal(
        open_dataset(spec(path), NOWHERE, torch.device("cpu")).test.inputs, read_windows(spec(path))[1].inputs
    )


def test_a_text_that_changed_since_it_was_read_is_not_trained_on(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("abcdefgh" * 30)
    one = spec(path)
    path.write_text("abcdefgh" * 29 + "abcdefgi")
    with pytest.raises(DataError, match=r"corpus.txt is not what it was when its space was read; run the same command"):
        load_dataset(one, NOWHERE)


def test_the_real_text_has_two_testaments(kjv):
    one = spec(kjv, context=128, second=23146)
    first, second = (load_dataset(one.model_copy(update={"part": part}), NOWHERE) for part in ("first", "second"))
    symbols = read_texts(one).symbols

    def read(windows: torch.Tensor) -> str:
        return "".join(symbols[token] for token in windows.flatten().tolist())

    assert read(first.train.inputs[0]).startswith("In the beginning God created the heaven and the earth.\nAnd the ear")
    assert read(second.train.inputs[0]).startswith("The book of the generation of Jesus Christ, the son of David")
    assert first.n_classes == second.n_classes == len(symbols) < 80
    assert len(first.train) > 3 * len(second.train)


def test_fewer_windows_than_images_are_read_at_once():
    images = Examples(inputs=torch.zeros(9, 1, 2, 2), labels=torch.zeros(9, dtype=torch.int64))
    text = Examples(inputs=torch.zeros(9, 128, dtype=torch.int64), labels=torch.zeros(9, 128, dtype=torch.int64))
    assert at_once(images, 512) == 512
    assert at_once(text, 512) * 128 == 512 * 16
    assert at_once(Examples(inputs=text.inputs.repeat(1, 100), labels=text.labels), 512) == 1


def test_some_examples_are_spread_over_all_of_every_set():
    inputs = torch.arange(3000)[:, None].expand(3000, 16)
    whole = Examples(inputs=inputs, labels=inputs)
    some = spread(Joined(sets=(whole, Part(whole=whole, indices=torch.arange(1000).numpy()))), 5)
    assert some.inputs[:, 0].tolist() == [0, 1000, 2000, 2999, 999]
    assert torch.equal(some.labels, some.inputs)
    assert len(spread(whole, 9999)) == 3000

"""Causal language models of Hugging Face from a folder, on a text: a tiny one, made on the spot."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from lmc_tune.averaging.command import Options, run
from lmc_tune.vision import import_torchvision

pytestmark = pytest.mark.recipes
WORDS = ["in", "the", "beginning", "god", "created", "heaven", "and", "earth"]


def saved(folder: Path, seed: int) -> Path:
    """A GPT-2 of two blocks with a tokenizer of words; members differ a little, as branches of one training do."""
    import_torchvision()  # with a CPU build of torch, transformers could not import it
    transformers, tokenizers = import_module("transformers"), import_module("tokenizers")
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=len(WORDS) + 1, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    vocabulary, other = {"?": 0} | {word: number for number, word in enumerate(WORDS, start=1)}, {"unk_token": "?"}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, **other))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **other).save_pretrained(folder)
    return folder


def test_a_folders_model_and_tokenizer_are_measured_on_a_text(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    drawn = rng.choice(WORDS, 1200)
    Path("corpus.txt").write_text(" ".join(drawn))
    one, other = saved(tmp_path / "one", 1), saved(tmp_path / "other", 2)
    options = Options(
        checkpoints=(str(one), str(other)),
        trajectory=None,
        model=f"hf:{one}",
        data="{name: text, path: corpus.txt, context: 8}",
        train=None,
        loss="cross-entropy",
        align=None,
        conditions=None,
        lambdas=5,
        threshold=None,
        confidence=0.95,
        residual="fixed",
        limit=1000,
        batch_size=32,
        device="cpu",
        data_root=tmp_path,
    )
    found = json.loads(run(options, lambda _: None).to_json())

    text = Path("corpus.txt").read_text()
    held_out = text[round(0.9 * len(text)) :].split()
    ids = torch.tensor([WORDS.index(word) + 1 if word in WORDS else 0 for word in held_out])
    n = (len(ids) - 1) // 8
    inputs, labels = ids[: 8 * n].view(n, 8), ids[1 : 8 * n + 1].view(n, 8)
    for at, folder in enumerate((one, other)):
        model = import_module("transformers").GPT2LMHeadModel.from_pretrained(folder).eval()
        with torch.no_grad():
            expected = float(functional.cross_entropy(model(inputs).logits.flatten(0, 1), labels.flatten()))
        assert found["members"][at]["test_loss"] == pytest.approx(expected, rel=1e-4)
    assert found["members"][0]["test_loss"] != found["members"][1]["test_loss"]

"""Texts: what is known of a file, where it is looked for, and spaces that cannot be run on it."""

import json
from pathlib import Path

import pytest

from lmc_tune.experiment import TextSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.reading import SpaceError, parse_space, read_space
from lmc_tune.experiment.text import TextError, found_file, read_content, read_texts

LINES = "".join(f"line {number} of the text\n" for number in range(1, 41))
SPACE = """\
name: study
dataset: {name: text, path: corpus.txt, context: 8}
model: {name: gpt, depth: 1, heads: 2, dim: 8}
train: {epochs: 1, batch_size: 4}
axes:
  lr: [0.1, 0.2]
shift: covariate
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(LINES)
    return path


def content(path: Path, **fields):
    return read_content(TextSpec(path=str(path), context=8, **fields)).known


def test_sizes_and_symbols_by_hand(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("abcab" * 18 + "cbadé" * 2, encoding="utf-8")  # 100 characters
    known = content(path)
    assert (known.train, known.test) == (90, 10)
    assert known.symbols == 3 + 1, "a, b, c, and one for d and é, which the training text lacks"
    spec = read_content(TextSpec(path=str(path), context=8))
    assert (spec.windows("train"), spec.windows("test")) == (11, 1)  # 8 tokens and one behind: 89 // 8, 9 // 8
    assert facts_of(spec).shape == (8,)
    of_bytes = content(path, tokens="bytes")
    assert (of_bytes.train, of_bytes.test, of_bytes.symbols) == (92, 10, 256)  # é has two
    assert content(path, held_out=0.5).train == 50


def test_only_the_content_of_a_file_counts_and_any_byte_of_it(tmp_path, corpus):
    twin = tmp_path / "elsewhere.txt"
    twin.write_bytes(corpus.read_bytes())
    before = content(corpus).hash
    assert content(twin).hash == before
    corpus.write_text(LINES[:-2] + "T\n")
    assert content(corpus).hash != before
    assert content(twin, second=str(corpus)).hash not in {before, content(corpus).hash}


def test_a_second_text_begins_at_a_line_or_is_a_file_and_symbols_are_those_of_both(tmp_path, corpus):
    texts = read_texts(TextSpec(path=str(corpus), context=8, second=21)).texts
    one, two = (texts[part].train + texts[part].test for part in ("first", "second"))
    assert one == "".join(LINES.splitlines(keepends=True)[:20])
    assert one + two == LINES
    other = tmp_path / "other.txt"
    other.write_text("0123456789ABCDEF" * 20)
    known = content(corpus, second=str(other))
    assert known.symbols == content(corpus).symbols + 6
    assert (known.second_train, known.second_test) == (288, 32)
    assert known.train == content(corpus).train


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"second": 42}, "corpus.txt has 40 lines; second: 42 names none of them"),
        ({"held_out": 0.999}, "corpus.txt is too short: 1 tokens to train on and 790 held out, for windows of 8"),
        ({"second": 2}, "is too short: 17 tokens to train on and 2 held out"),
    ],
)
def test_texts_of_which_nothing_is_left_are_refused(corpus, fields, said):
    with pytest.raises(TextError, match=said):
        content(corpus, **fields)


def test_what_is_no_utf_8_is_refused_and_its_bytes_are_read(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(("caf\xe9 " * 100).encode("latin-1"))
    with pytest.raises(TextError, match=r"latin.txt is no UTF-8 text \(byte 3\); say tokens: bytes, or convert it"):
        content(path)
    assert content(path, tokens="bytes").train == 450


def test_a_file_is_looked_for_in_one_folder_after_the_other(tmp_path, corpus):
    (tmp_path / "inner").mkdir()
    folders = [str(tmp_path / "inner"), str(tmp_path)]
    assert found_file("corpus.txt", folders) == str(corpus)
    (tmp_path / "inner" / "corpus.txt").write_text("another")
    assert found_file("corpus.txt", folders) == str(tmp_path / "inner" / "corpus.txt")
    assert found_file(str(corpus), folders) == str(corpus)
    with pytest.raises(TextError, match=f"there is no file {tmp_path}/inner/else.txt or {tmp_path}/else.txt"):
        found_file("else.txt", folders)
    with pytest.raises(TextError, match=f"{tmp_path}/inner is a folder, and a text is one file"):
        found_file("inner", folders)


def test_a_space_reads_the_text_next_to_it_and_keeps_what_it_read(tmp_path, corpus, monkeypatch):
    (tmp_path / "space.yaml").write_text(SPACE)
    space = read_space(tmp_path / "space.yaml")
    spec = space.pairs()[0].dataset
    assert spec.path == str(corpus)
    assert spec.content == content(corpus)
    monkeypatch.chdir(tmp_path)
    assert read_space(space).cells() == space.cells()
    assert read_space(json.loads(json.dumps(space.plain()))).cells() == space.cells()
    # A run folder's space is read where the text may be gone; it is trusted then.
    corpus.unlink()
    assert parse_space(json.dumps(space.plain())).cells() == space.cells()
    for path, said in (
        ("corpus.txt", "there is no file .*corpus.txt; name yours with --set dataset.path=FILE"),
        (".", "is a folder, and a text is one file; name yours with --set dataset.path=FILE"),
    ):
        (tmp_path / "space.yaml").write_text(SPACE.replace("corpus.txt", path))
        with pytest.raises(SpaceError, match=rf"space.yaml:2: dataset.path: .*{said}"):
            read_space(tmp_path / "space.yaml")


def test_a_changed_text_gives_other_members_and_a_moved_one_the_same(tmp_path, corpus):
    def keys(folder: Path) -> list[str]:
        (folder / "space.yaml").write_text(SPACE)
        pairs = read_space(folder / "space.yaml").pairs()
        return [key for pair in pairs for key in (pair.key, *(member.key for member in pair.members.values()))]

    before = keys(tmp_path)
    moved = tmp_path / "moved"
    moved.mkdir()
    corpus.rename(moved / "corpus.txt")
    assert keys(moved) == before
    (moved / "corpus.txt").write_text(LINES.replace("line 3 ", "line 5 "))
    assert not set(keys(moved)) & set(before)


def test_paths_contexts_and_tokens_can_be_axes(tmp_path, corpus):
    (tmp_path / "other.txt").write_text(LINES.upper())
    text = SPACE.replace("path: corpus.txt, context: 8", "test: 3").replace(
        "  lr: [0.1, 0.2]",
        "  lr: [0.1]\n  path: [corpus.txt, other.txt]\n  context: [4, 8]\n  tokens: [bytes, characters]",
    )
    (tmp_path / "space.yaml").write_text(text)
    space = read_space(tmp_path / "space.yaml")
    facts = {(cell.first.dataset.label, facts_of(cell.first.dataset).shape) for cell in space.cells()}
    assert facts == {(name, (context,)) for name in ("corpus.txt", "other.txt") for context in (4, 8)}
    assert len({cell.key for cell in space.cells()}) == 8


MODEL = "{name: gpt, depth: 1, heads: 2, dim: 8}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("path: corpus.txt, ", "", "2: dataset.path: is missing: give it a value here or vary it with axes.path"),
        (
            "path: corpus.txt",
            "path: corpus.txt, normalise: true",
            "2: dataset.normalise: unknown key 'normalise'; a text has none",
        ),
        (
            "{name: text, path: corpus.txt, context: 8}",
            "{name: digits, context: 8}",
            "2: dataset.context: unknown key 'context'; only a text (name: text) has one",
        ),
        ("{name: text, path: corpus.txt, context: 8}", "txt", "unknown data set 'txt'; did you mean text?"),
        (MODEL, "{name: mlp}", "3: model: mlp needs images; text has windows of 8 tokens"),
        (MODEL, "{name: vit}", "3: model: vit needs images; text has windows of 8 tokens"),
        (
            "{name: text, path: corpus.txt, context: 8}",
            "digits",
            "3: model: gpt needs text; digits has 8x8",
        ),
        ("dim: 8}", "dim: 9}", "3: model: dim 9 is not a multiple of heads 2"),
        (
            "shift: covariate",
            "shift: {kind: label, ratio: 0.8}",
            "7: shift.kind: label skews classes, and text has none: its labels are the next tokens; say covariate or",
        ),
        (
            "shift: covariate",
            "shift: {kind: domain, domain: second}",
            "7: shift.domain: the text has no domain second; say domain: second, and give the second text's file, or",
        ),
        ("shift: covariate", "shift: {kind: domain, domain: blur}", "shift.domain: the text has no domain blur; say"),
        ("shift: covariate", "shift: {kind: domain, domain: mnist}", "shift.domain: the text has no domain mnist; say"),
        ("epochs: 1", "epochs: 1, crop: 2", "4: train.crop: changes images, and the data set is a text; leave it out"),
        ("epochs: 1", "epochs: 1, flip: true", "4: train.flip: changes images, and the data set is a text; leave it"),
        ("context: 8", "context: 8, train: 200", "2: dataset.train: text has 88 training examples; ask for 88 at"),
        ("context: 8", "context: 8, part: second", "2: dataset.part: is filled in when a space is read; leave it out"),
        ("context: 8", "context: 400", "is too short: 712 tokens to train on and 79 held out, for windows of 400"),
    ],
)
def test_what_cannot_be_done_with_text_is_said_before_anything_starts(tmp_path, corpus, old, new, said):
    assert old in SPACE
    (tmp_path / "space.yaml").write_text(SPACE.replace(old, new))
    with pytest.raises(SpaceError) as raised:
        read_space(tmp_path / "space.yaml")
    assert said in str(raised.value)
    assert len(raised.value.problems) == 1


def test_the_second_text_is_no_domain_of_images(tmp_path):
    space = (
        SPACE.replace("{name: text, path: corpus.txt, context: 8}", "digits")
        .replace(MODEL, "mlp")
        .replace("shift: covariate", "shift: {kind: domain, domain: second}")
    )
    with pytest.raises(SpaceError, match=r"shift.domain: second is a domain of a text; digits has images: name a"):
        parse_space(space)

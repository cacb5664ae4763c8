"""A text as a data set: a user's own file, as tokens. No torch.

The text of a file, or of its first lines, is cut in two: its end is held out as the test set. What is known of it
without training, its size and its symbols, is filled in when a space is read (:func:`read_content`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lmc_tune.core.counted import counted
from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError
from lmc_tune.experiment.spec import Count, Natural, Spec, canonical
from lmc_tune.experiment.yaml_lines import as_written

# Bytes as symbols of their own.
_BYTES = 256
Which = Literal["first", "second"]


class TextError(UserError):
    """A text that cannot be read or used; the message says why, and what to do."""


class TextContent(Spec):
    """What is known of a text: a hash of its files, how many symbols there are, and the tokens of every part.

    symbols: different tokens; with characters one of them stands for all that the training text lacks, if there are.
    train, test: tokens of the training text and of what is held out; second_train, second_test: of the second text.
    """

    hash: str
    symbols: Count
    train: Natural
    test: Natural
    second_train: Natural = 0
    second_test: Natural = 0


class TextSpec(Spec):
    """A text, cut into windows that do not overlap; a network predicts every token from those before it.

    path: of a UTF-8 file; not part of any key, which has a hash of the file's content instead.
    context: tokens in a window.
    tokens: ``characters``, those of the training text; or the 256 ``bytes``.
    held_out: fraction of the text, at its end, that is the test set.
    second: a text of another domain, which ``shift: {kind: domain, domain: second}`` shows to B: a file; or the line of
        the same file at which it begins, and then the first text ends there. Its end is held out too.
    train, test, validation: as of images, counted in windows; which ones is drawn at random.
    content: what the files hold; filled in when a space is read.
    part: which of the two texts is meant.
    """

    name: Literal["text"] = "text"
    path: Annotated[str, Field(min_length=1)]
    context: Count = 128
    tokens: Literal["characters", "bytes"] = "characters"
    held_out: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.1
    second: Annotated[str, Field(min_length=1)] | Annotated[int, Field(strict=True, ge=2)] | None = None
    train: Count | None = None
    test: Count | None = None
    validation: Natural = 0
    content: TextContent | None = None
    part: Which = "first"

    @field_validator("second", mode="before")
    @classmethod
    def _file_or_line(cls, second: Any) -> Any:
        is_line = isinstance(second, int) and not isinstance(second, bool) and second >= 2
        if not (second is None or is_line or (isinstance(second, str) and second)):
            raise ValueError(
                f"write a file, or the line from 2 at which the second text begins; got {as_written(second)}"
            )
        return second

    @property
    def known(self) -> TextContent:
        """What its files hold.

        Raises:
            ValueError: if that was not filled in.
        """
        if self.content is None:
            raise ValueError(f"the text {self.path} was not read; make its spec with read_content")
        return self.content

    @property
    def source(self) -> str:
        """The fields that decide its content, apart from the files themselves."""
        return canonical(self.model_dump(mode="json", include={"path", "tokens", "held_out", "second"}))

    @cached_property
    def text(self) -> str:
        """Canonical JSON of what it decides: a hash in place of paths."""
        fields = self.model_dump(mode="json", exclude={"path", "content"})
        second = "file" if isinstance(self.second, str) else self.second
        return canonical({**fields, "second": second, "hash": self.known.hash})

    @property
    def label(self) -> str:
        """The file's name."""
        return Path(self.path).name

    def windows(self, split: Literal["train", "test"]) -> int:
        """How many windows there are; each has another token behind it to predict."""
        known = self.known
        tokens = {
            ("first", "train"): known.train,
            ("first", "test"): known.test,
            ("second", "train"): known.second_train,
            ("second", "test"): known.second_test,
        }[self.part, split]
        return max(0, tokens - 1) // self.context


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text, of which the end is held out; of bytes, one character for each."""

    train: str
    test: str


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a spec; ``symbols`` are all that their training texts have, in order, ``unknown`` whether the test
    texts have others.
    """

    hash: str
    texts: dict[Which, Text]
    symbols: str
    unknown: bool


def found_file(path: str, folders: Sequence[str]) -> str:
    """The absolute path of a text: of the first of some folders that has it.

    Raises:
        TextError: if none has, or what it has is a folder.
    """
    given = expanded(path)
    candidates = [given.absolute()] if given.is_absolute() else [Path(folder, given).absolute() for folder in folders]
    there = next((file for file in candidates if file.is_file()), None)
    if there is not None:
        return str(there)
    if folder := next((file for file in candidates if file.is_dir()), None):
        raise TextError(f"{folder} is a folder, and a text is one file")
    raise TextError(f"there is no file {' or '.join(map(str, dict.fromkeys(candidates)))}")


def read_content(spec: TextSpec) -> TextSpec:
    """The text with its content filled in.

    Raises:
        TextError: if a file cannot be read, is no UTF-8, or is too short.
    """
    texts = read_texts(spec)
    first, second = texts.texts["first"], texts.texts.get("second")
    content = TextContent(
        hash=texts.hash,
        symbols=len(texts.symbols) + texts.unknown,
        train=len(first.train),
        test=len(first.test),
        second_train=len(second.train) if second else 0,
        second_test=len(second.test) if second else 0,
    )
    return spec.model_copy(update={"content": content})


def read_texts(spec: TextSpec) -> Texts:
    """The texts themselves.

    Raises:
        TextError: if a file cannot be read, is no UTF-8, or if a text of fewer than two windows is left of it.
    """
    files = [spec.path] + ([spec.second] if isinstance(spec.second, str) else [])
    contents = [_read(file) for file in files]
    whole = [_decoded(content, file, spec.tokens) for content, file in zip(contents, files, strict=True)]
    if isinstance(spec.second, int):
        whole = _parted(whole[0], spec)
    cut = [_held_out(text, spec) for text in whole]
    seen = set().union(*(text.train for text in cut))
    symbols = "".join(map(chr, range(_BYTES))) if spec.tokens == "bytes" else "".join(sorted(seen))
    digest = hashlib.blake2b(digest_size=12)
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)
    which: tuple[Which, ...] = ("first", "second")
    return Texts(
        hash=digest.hexdigest(),
        texts=dict(zip(which, cut, strict=False)),
        symbols=symbols,
        unknown=not set().union(*(text.test for text in cut)) <= set(symbols),
    )


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise TextError(f"{file} cannot be read: {error.strerror or error}") from error


def _decoded(content: bytes, file: str, tokens: str) -> str:
    if tokens == "bytes":
        return content.decode("latin-1")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{file} is no UTF-8 text (byte {error.start}); say tokens: bytes, or convert it") from error


def _parted(text: str, spec: TextSpec) -> list[str]:
    """The lines before the one at which the second text begins, and the others."""
    lines = text.split("\n")
    n, at = len(lines) - (lines[-1] == ""), int(spec.second or 0) - 1
    if at >= n:
        raise TextError(f"{spec.path} has {counted(n, 'line')}; second: {spec.second} names none of them")
    return ["".join(f"{line}\n" for line in lines[:at]), "\n".join(lines[at:])]


def _held_out(text: str, spec: TextSpec) -> Text:
    at = round(len(text) * (1 - spec.held_out))
    made = Text(train=text[:at], test=text[at:])
    least = 2 * spec.context + 1  # two members see different windows
    if len(made.train) < least or len(made.test) <= spec.context:
        raise TextError(
            f"{spec.path} is too short: {len(made.train)} tokens to train on and {len(made.test)} held out, for "
            f"windows of {spec.context} and a token behind; give a longer text or a smaller context"
        )
    return made

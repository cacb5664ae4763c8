"""The files of a report: which are written, and writing them."""

import os
from collections.abc import Sequence
from typing import Literal, get_args

from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError
from lmc_tune.storage import Place, replacing, what_fails

Format = Literal["html", "png", "svg", "pdf", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
PICTURES: tuple[Format, ...] = ("png", "svg", "pdf")


def choose_files(
    folder: Place, name: str, out: str | os.PathLike[str] | None, formats: Sequence[str] | None
) -> dict[str, Place]:
    """The file of every format, as :func:`~lmc_tune.analysis.report.render.render` says.

    Args:
        folder: of the run, where files go that ``out`` does not place.
        name: of files that ``out`` does not name, without a suffix.
        out: a file or a folder.
        formats: by default what the suffix of ``out`` says, else ``html``.

    Raises:
        UserError: if a format is unknown or contradicts the file's name, or the file is not on this machine.
    """
    if unknown := [suffix for suffix in formats or () if suffix not in FORMATS]:
        raise UserError(f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    if out is not None and "://" in os.fspath(out):
        raise UserError(f"-o names a file or folder on this machine, not {out}; leave it out for the run folder")
    place = None if out is None else expanded(out)
    if place is None or place.is_dir() or os.fspath(out or "").endswith(("/", os.sep)):
        return {suffix: (place or folder) / f"{name}.{suffix}" for suffix in formats or ("html",)}
    ending = place.suffix.removeprefix(".")
    if formats is None:
        if ending not in ("", *FORMATS):
            raise UserError(f"{place}: {ending!r} is no format; end the name in one of {', '.join(FORMATS)}")
        formats = (ending or "html",)
    if ending in FORMATS:
        if ending not in formats:
            raise UserError(f"{place} is not a name for {', '.join(formats)}; leave its suffix out, or the formats")
        place = place.with_suffix("")
    return {suffix: place.with_name(f"{place.name}.{suffix}") for suffix in formats}


def write(path: Place, content: bytes) -> None:
    """Write a file, or raise a UserError that says what to do."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write {path} ({what_fails(path, error)}); choose another place with -o") from error

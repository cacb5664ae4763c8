"""Which finished pairs of a run folder its space plans, and which of those answer what it asks now."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import SpaceError, parse_space
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.experiment.wording import nearest
from lmc_tune.storage import Place

if TYPE_CHECKING:
    import pandas as pd

# What marked() adds to the columns of the results.
MARKS = ("planned", "stale")
# A run folder's space has every key, this one last: a file cut short would be read with defaults for what is lost.
LAST_KEY = "members"


def planned_space(folder: Place) -> SearchSpace | None:
    """The space of a run folder; None if it has none.

    Raises:
        UserError: if the file is damaged; how to fix it.
    """
    file = folder / SPACE_FILE
    return space_in(file, file.read_text(encoding="utf-8", errors="replace")) if file.exists() else None


def space_in(file: Place, text: str) -> SearchSpace:
    """The space in the text of a run folder's ``space.yaml``; errors as :func:`planned_space`."""
    try:
        space = parse_space(text, file.name)
    except SpaceError as error:
        raise _damaged(file, error.problems[0]) from error
    if f"\n{LAST_KEY}:" not in text:
        raise _damaged(file, f"it is cut short: {LAST_KEY} is missing")
    return space


def _damaged(file: Place, problem: str) -> UserError:
    return UserError(
        f"{file} is damaged ({problem}). Restore it from a copy, or run the same sweep, which writes it again; if it "
        f"is moved away, the report judges every finished pair by the default verdict."
    )


def questions(space: SearchSpace) -> dict[str, str]:
    """The key of the question that a space asks of the pairs of each cell, by the cell's key."""
    asked: dict[str, str] = {}
    found = {}
    for cell in space.cells():
        network = cell.first.model.text
        if network not in asked:
            asked[network] = space.measure.of(cell.first.model).key
        found[cell.key] = asked[network]
    return found


def marked(results: "pd.DataFrame", asked: Mapping[str, str], replicates: int) -> "pd.DataFrame":
    """The results with two columns more.

    ``planned``: whether the pair is in the space. ``stale``: whether it is, and answers an earlier question than the
    space asks; the next sweep measures it again. A failed pair answers none and is not stale.

    Args:
        results: with ``cell``, ``replicate``, ``status`` and ``question``.
        asked: as :func:`questions` gives it.
        replicates: of the space.
    """
    planned = results["cell"].isin(list(asked)) & (results["replicate"] < replicates)
    answers = results["question"] == results["cell"].map(dict(asked))
    return results.assign(planned=planned, stale=planned & (results["status"] != "failed") & ~answers)


def why_no_run(folder: Place) -> str:
    """What may be meant by a place that is no run folder, as the end of a sentence; else how to make one there."""
    if isinstance(folder, Path):
        if folder.is_file():
            inside = folder.parent if (folder.parent / SPACE_FILE).exists() else None
            return f", which is a file{f'; the run folder is {inside}' if inside else '; name a run folder'}"
        if runs := sorted(file.parent.name for file in folder.glob(f"*/{SPACE_FILE}")):
            return f"; it holds the runs {', '.join(runs)}"
        if near := nearest(folder.name, [file.parent.name for file in folder.parent.glob(f"*/{SPACE_FILE}")]):
            return f"{near} Or start one with: lmc-tune sweep SPACE --out {shlex.quote(str(folder))}"
    return f"; start one with: lmc-tune sweep SPACE --out {shlex.quote(str(folder))}"

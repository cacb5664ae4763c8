"""The outcomes of claims over time: none is lost when tables or rules change, and each says why it changed."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from lmc_tune.analysis.reproduction.expectations import Outcome
from lmc_tune.errors import UserError
from lmc_tune.storage import write_text

OUTCOMES_FILE = "outcomes.csv"


@dataclass(frozen=True)
class Recorded:
    """What a study said of a claim from a date on, and what had changed by then.

    outcome: one of today's, or in the words of earlier rules.
    """

    claim: str
    study: str
    date: str
    outcome: str
    why: str


def read_outcomes(tables: Path) -> list[Recorded]:
    """In the order in which they were recorded; empty if there is no file."""
    file = tables / OUTCOMES_FILE
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [Recorded(**row) for row in csv.DictReader(lines)]


def record_outcomes(tables: Path, found: Mapping[tuple[str, str], Outcome], why: str) -> list[Recorded]:
    """Append the outcomes that differ from the last one recorded for the same claim and study, and return all.

    Args:
        tables: the folder.
        found: outcomes by claim and study.
        why: what changed.

    Raises:
        UserError: if an outcome changed and ``why`` is empty.
    """
    known = read_outcomes(tables)
    last = {(one.claim, one.study): one.outcome for one in known}
    changed = {of: outcome for of, outcome in found.items() if last.get(of) != outcome}
    if changed and not why:
        listed = "; ".join(f"{claim} by {study} is {outcome}" for (claim, study), outcome in changed.items())
        raise UserError(f"outcomes differ from those recorded ({listed}); say what changed with --why TEXT")
    today = datetime.now(UTC).date().isoformat()
    recorded = [*known, *(Recorded(*of, today, outcome, why) for of, outcome in changed.items())]
    if changed:
        write_text(tables / OUTCOMES_FILE, _table(recorded))
    return recorded


def _table(recorded: Sequence[Recorded]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(field.name for field in fields(Recorded))
    rows.writerows(astuple(one) for one in recorded)
    return text.getvalue()

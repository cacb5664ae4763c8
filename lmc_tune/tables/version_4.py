"""Folders of schema version 4, whose pairs had the question in their keys: read as if they had been written today.

Their rows say in the column ``spec`` what the pair is and what it was asked, which gives today's keys.
"""

import json
from collections.abc import Collection

import pyarrow as pa

from lmc_tune.experiment import GroupSpec, MeasureSpec
from lmc_tune.experiment.datasets import part_size
from lmc_tune.experiment.measuring import Condition

# Statistics were estimated in whole batches of so many examples, and the rest left out: where there was one, the answer
# is that of a version of its own.
_ESTIMATED: set[Condition] = {"recalibrated", "repaired"}
_BATCH = 512
_INCOMPLETE = 0
# The version of the questions that all their other rows answer.
_WHOLE = 1
# What only later rows say.
LATER = ("question", "member_a", "member_b")


def wrote(columns: Collection[str]) -> bool:
    """Whether rows with these columns may be of version 4."""
    return "question" not in columns


def translated(results: pa.Table) -> pa.Table:
    """Rows with today's keys; those that have them already stay as they are. Of a pair that was asked several
    questions, which had a row for each, the last is left.

    Args:
        results: rows with a column ``spec``, and any others.
    """
    rows = [_translation(spec) for spec in results["spec"].to_pylist()]
    for name in results.column_names:
        if name in ("key", "cell", "spec", *LATER):
            known = results[name].to_pylist()
            values = [(row or {}).get(name, value) for row, value in zip(rows, known, strict=True)]
            at = results.schema.get_field_index(name)
            results = results.set_column(at, results.schema.field(at), pa.array(values, pa.string()))
    last = {(row or {}).get("key", at): at for at, row in enumerate(rows)}
    return results.take(pa.array(sorted(last.values()), pa.int64()))


def renamed(keys: pa.ChunkedArray, specs: pa.ChunkedArray) -> dict[str, str]:
    """Today's key by the one that a row had; of rows that are left out, theirs, which is no longer anyone's."""
    today = {}
    for key, spec in zip(keys.to_pylist(), specs.to_pylist(), strict=True):
        if (translation := _translation(spec)) is not None:
            today[translation["key"]] = key
    return {key: new for new, key in today.items()}


def _translation(spec: str) -> dict[str, str] | None:
    content = json.loads(spec)
    measure = content.pop("measure", None)
    if measure is None:
        return None
    group = GroupSpec.model_validate(content)
    members = {f"member_{name}": member.key for name, member in group.members.items()}
    asked, examples = MeasureSpec.model_validate(measure), 2 * part_size(group.dataset, group.shift)
    left_out = examples % _BATCH if examples > _BATCH else 0
    incomplete = left_out and _ESTIMATED & set(asked.conditions or ())
    question = asked.key_of(_INCOMPLETE if incomplete else _WHOLE)
    return {"key": group.key, "cell": group.cell, "spec": group.text, "question": question, **members}

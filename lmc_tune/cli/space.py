"""The command that prices a search space before anything is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmc_tune.cli.plainly import Json, note, plain_errors, print_entry, print_json
from lmc_tune.core.counted import counted
from lmc_tune.core.duration import in_words

if TYPE_CHECKING:
    from lmc_tune.sweeps.answers import Held
    from lmc_tune.sweeps.cost import Left

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A YAML file, or a preset's name (lmc-tune presets).")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one value: --set train.epochs=3, --set 'axes.lr=[0.01, 0.1]'. Repeatable.",
    ),
]


def space(
    space: Space,
    *,
    sets: Sets = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Also print what this run folder already holds, and the time for the rest."),
    ] = None,
    run_factories: Annotated[
        bool,
        typer.Option("--run-factories", help="Run the code that the space's factories name, to time their networks."),
    ] = False,
    json_: Json = False,
) -> None:
    """Check a space and estimate its cost.

    Nothing is trained. Prints cells, pairs, members, cohorts, steps and the time on this machine's cores; with --out
    also what a run folder already holds, and the time for the rest.
    """
    from lmc_tune.experiment.checks import too_few_examples
    from lmc_tune.experiment.reading import read_space
    from lmc_tune.experiment.sources import folders_beside
    from lmc_tune.storage import place_at
    from lmc_tune.sweeps.answers import held
    from lmc_tune.sweeps.cost import estimate_cost

    with plain_errors():
        study = read_space(space, sets or [])
        there = None if out is None else held(study, place_at(out))
        folders = folders_beside(Path(space))
        cost = estimate_cost(study, note, run_factories=run_factories, folders=folders, there=there)
    if json_:
        print_json(cost.plain() | (there.plain() if there else {}))
        return
    for axis, values in study.axes.items():
        print_entry(f"{axis:>12}  ", ", ".join(_in_words(axis, values)), 14)
    for name in ("cells", "pairs", "members", "cohorts", "steps"):
        label = f"{study.group}s" if name == "pairs" else name
        typer.echo(f"{label:>12}  {getattr(cost, name):,}")
        if name == "members" and cost.trainings > cost.members:
            more = f"in {cost.trainings:,} trainings, since more pairs share members than a cohort holds; fewer where "
            print_entry("", f"{more}members are kept", 14)
    if cost.tolerance_error > study.measure.tolerance_error:
        given = f"measure.tolerance_error {study.measure.tolerance_error:g} is smaller"
        print_entry(f"{'tolerance':>12}", f"{cost.tolerance_error:.4f} for errors, one test example: {given}", 14)
    if coarse := too_few_examples(study):
        print_entry(f"{'threshold':>12}", coarse, 14)
    print_entry(f"{'time':>12}", _time(cost.seconds_train, cost.seconds_measure), 14)
    if cost.seconds_train is not None:
        print_entry("", f"on the CPU with {cost.workers} workers, timed just now on random inputs", 14)
    if there is not None and cost.left is not None:
        _print_held(there, cost.left, study.group)


def _print_held(there: "Held", left: "Left", group: str) -> None:
    """What a run folder holds of a space, and what the rest costs."""
    typer.echo(f"{'finished':>12}  {there.finished} of these {group}s are in the folder")
    if there.failed:
        typer.echo(f"{'failed':>12}  {there.failed} of these {group}s, which are tried again")
    if there.again:
        print_entry("", str(there.again), 14)
    if there.others:
        print_entry("", f"{counted(there.others, group)} of the folder are not in this space", 14)
    if there.moved:
        print_entry("", there.moved, 14)
    if there.left_out:
        typer.echo(f"{'left out':>12}  {there.left_out}, by the search, which has ended")
    typer.echo(f"{'left':>12}  {left.pairs}")
    if left.pairs:
        print_entry("", _time(left.seconds_train, left.seconds_measure), 14)


def _time(train: float | None, measure: float | None) -> str:
    if train is None or measure is None:
        return "not known: to time the networks of its factories, read their code and add --run-factories"
    return f"about {in_words(train)} of training and {in_words(measure)} of measuring"


def _in_words(axis: str, values: Sequence[object]) -> list[str]:
    """The values of an axis; of mappings the name, and every key that is not at its default in all of that name."""
    return [_mapping(axis, one, values) if isinstance(one, dict) else _plain(one) for one in values]


def _mapping(axis: str, value: dict[str, Any], values: Sequence[object]) -> str:
    from lmc_tune.experiment import ShiftSpec
    from lmc_tune.experiment.space import SECTIONS, section_spec

    if axis == "shift" and "kind" in value:
        return ShiftSpec.model_validate(value).label
    spec = section_spec(axis, value) if axis in SECTIONS else None
    defaults = {name: _plain(field.default) for name, field in spec.model_fields.items()} if spec else {}
    name = _name(value)
    alike = [other for other in values if isinstance(other, dict) and _name(other) == name]
    keys = [key for key in value if any(_plain(other.get(key)) != defaults.get(key) for other in alike)]
    parts = [f"{key} {_plain(value[key])}" for key in keys if key not in {"name", "factory"}]
    return " ".join([*([name] if name else []), *parts]) or "{}"


def _name(value: dict[str, Any]) -> str:
    return str(value.get("factory") or value.get("name") or "")


def _plain(value: object) -> str:
    """As YAML has it, without quotes."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_plain(own)}' for key, own in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

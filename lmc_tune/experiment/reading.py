"""Reading a search space. All problems are reported at once, with line, path, value and the nearest known name."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError
from lmc_tune.experiment.checks import origin, problems
from lmc_tune.experiment.data import SHORT_FORMS, DatasetSpec, data_kind, written_out
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.experiment.networks import MODELS, model_name
from lmc_tune.experiment.ranges import SPACINGS, spaced
from lmc_tune.experiment.recipes import GroupKind
from lmc_tune.experiment.sources import Code, code_of, folders_beside
from lmc_tune.experiment.space import (
    AXES,
    DECIDED,
    FILLED_IN,
    RECIPE,
    SECTIONS,
    SPACE_FILE,
    SearchSpace,
    Sections,
    beside,
    group_kind,
    place,
    section_spec,
)
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.text import TextContent, TextError, TextSpec, found_file, read_content
from lmc_tune.experiment.wording import (
    TOP_LEVEL,
    close_to,
    nearest,
    nearest_top_level,
    no_mapping,
    problems_of,
    sections_with,
)
from lmc_tune.experiment.yaml_lines import Location, YamlError, as_written, dotted, load_value, load_with_lines

# More would take gigabytes and minutes before the first is trained, and most often is a typing error in a range.
_MOST_PAIRS, _MOST_ON_AN_AXIS = 1_000_000, 10_000
_LONGEST = 1000
# What a section is named by that may be written as its name alone.
_NAMED_BY = {"dataset": "name", "model": "name", "shift": "kind", "recipe": "family"}
# The section that makes groups of a kind, and what they have in the place of others.
_MADE_BY: dict[GroupKind, str] = {"federation": "federated", "ensemble": "recipe"}
_INSTEAD: dict[GroupKind, dict[str, str]] = {
    "federation": {
        "train": "clients train for rounds x local_epochs",
        "shift": "federated.split gives every client its own data",
        "b": "all clients are trained alike",
        "perturb": "no client is perturbed",
        "recipe": "a federation's clients are no ensemble",
    },
    "ensemble": {
        "train": "members are trained for train.epochs, the first recipe.t of them together",
        "b": "all members are trained alike",
        "perturb": "no member is perturbed",
    },
}


class SpaceError(UserError):
    """A space that cannot be run; ``problems`` holds one line per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def presets() -> dict[str, Path]:
    """The spaces that ship with lmc-tune, by name."""
    folder = Path(str(resources.files("lmc_tune.search_spaces")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_space(
    space: str | os.PathLike[str] | Mapping[str, Any] | SearchSpace, sets: Sequence[str] = ()
) -> SearchSpace:
    """A search space with ``key=value`` overrides, and the code of its factories and its texts as they are now.

    Args:
        space: a YAML file, a preset's name, what a YAML file would hold as a mapping (arrays and tuples count as
            lists), or a space, which is checked again.
        sets: overrides such as ``train.epochs=3`` or ``axes.lr=[0.1]``; the value is YAML.

    Raises:
        SpaceError: listing every problem found.

    Example:
        >>> space = read_space("quickstart", ["replicates=2", "axes.lr=[0.01, 0.1]"])
        >>> space.axes["lr"]
        (0.01, 0.1)
        >>> len(space.pairs()) == 2 * len(space.cells())
        True
        >>> train = {"epochs": 5, "momentum": 0.9, "batch_size": 32}
        >>> mine = read_space({"name": "mine", "train": train, "axes": {"lr": {"log": [0.01, 1], "steps": 3}}})
        >>> mine.axes["lr"]
        (0.01, 0.1, 1.0)
    """
    known: Mapping[str, Code] = {}
    if isinstance(space, Mapping | SearchSpace):
        folders = folders_beside(Path("space"))  # that is, the current one
        content = _plain(space.plain() if isinstance(space, SearchSpace) else space)
        read = _Reader("space", {}, folders).read(content, sets)
        if isinstance(space, SearchSpace):
            known = space.code  # it may have been read in another folder
    else:
        path, text = _found(os.fspath(space))
        folders = folders_beside(path)
        read = parse_space(text, path.name if path.is_file() else str(space), sets, folders)
    code = {factory: code_of(factory, folders) or known.get(factory) for factory in read.factories}
    return read.model_copy(update={"code": {factory: found for factory, found in code.items() if found}})


def _found(space: str) -> tuple[Path, str]:
    """The file of a preset, or the one named, and its text."""
    known = presets()
    path = known.get(space, expanded(space))
    try:
        return path, path.read_text(encoding="utf-8")
    except IsADirectoryError as error:
        own = path / SPACE_FILE
        hint = f"its space is {own}" if own.exists() else f"name a YAML file or a preset ({', '.join(known)})"
        raise SpaceError([f"{space} is a folder; {hint}"]) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = nearest(space, known) or f"; the presets are {', '.join(known)}"
        raise SpaceError([f"{space}: no such file and no such preset{hint}"]) from error
    except OSError as error:
        raise SpaceError([f"{space}: cannot be read ({error.strerror}); change that, or name another file"]) from error
    except UnicodeDecodeError as error:
        raise SpaceError([f"{space}: cannot be read as text: {error}"]) from error


def _plain(value: Any) -> Any:
    """A copy of a mapping made in Python, as YAML would have given it."""
    if isinstance(value, Mapping):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, Spec):
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):  # an array, or a number out of one
        return _plain(value.tolist())
    return [_plain(own) for own in value] if isinstance(value, list | tuple | range) else value


def parse_space(
    text: str, source: str = "space.yaml", sets: Sequence[str] = (), folders: Sequence[str] | None = None
) -> SearchSpace:
    """Build a space from YAML text.

    Args:
        text: the YAML document.
        source: its name, for messages.
        sets: overrides such as ``train.epochs=3`` or ``axes.lr=[0.1]``; the value is YAML.
        folders: where files of texts are looked for and read; if None, what the space knows of them is taken as it is,
            and files are looked for next to the source if it knows nothing.

    Raises:
        SpaceError: listing every problem found.
    """
    try:
        content, lines = load_with_lines(text)
    except YamlError as error:
        raise SpaceError([f"{source}:{error.line}: {error}"]) from error
    if not isinstance(content, dict):
        raise SpaceError([f"{source}:1: a search space is a mapping that starts with name:"])
    return _Reader(source, lines, folders).read(content, sets)


class _Reader:
    """Collects problems while a plain mapping becomes a SearchSpace; without ``lines`` it was written in Python."""

    def __init__(self, source: str, lines: dict[Location, int], folders: Sequence[str] | None) -> None:
        self.source = source
        self.lines = lines
        self.folders = folders
        self.overridden: set[Location] = set()
        # Sections, and fields of sections, of which it is not known what they should hold: one problem has said so.
        self.unsettled: set[tuple[str, ...]] = set()
        self.problems: dict[str, int] = {}  # each with its line

    def read(self, content: dict[str, Any], sets: Sequence[str]) -> SearchSpace:
        for override in sets:
            self.override(content, override)
        return self.space(content)

    def problem(self, place: Location, message: str) -> None:
        line = next((self.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.lines), 1)
        if len(message) > _LONGEST:  # a value may be as long as the file
            message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
        by_set = any(place[: len(path)] == path or path[: len(place)] == place for path in self.overridden)
        where = "command line" if by_set else f"{self.source}:{line}" if self.lines else self.source
        text = f"{where}: {dotted(place)}: {message}" if place else f"{where}: {message}"
        self.problems.setdefault(text, 0 if by_set else line)

    def stop_on_problems(self) -> None:
        if self.problems:
            raise SpaceError(sorted(self.problems, key=lambda text: self.problems[text]))

    def override(self, content: dict[str, Any], text: str) -> None:
        key, equals, value = text.partition("=")
        keys = key.strip().split(".")
        if keys[0] == "axes" and (axis := ".".join(keys[1:])) in AXES:
            keys = ["axes", axis]
        if not equals or not all(keys):
            raise SpaceError([f"--set {text}: write it as key=value, e.g. train.epochs=3 or axes.lr=[0.01, 0.1]"])
        try:
            parsed = load_value(value)
        except YamlError as error:
            raise SpaceError([f"--set {text}: the value is {error}"]) from error
        at: Any = content
        for step, name in enumerate(keys[:-1]):
            if step == 0 and isinstance(at.get(name), str):
                at[name] = _spelled_out(name, at[name])
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise SpaceError([f"--set {text}: {'.'.join(keys[: step + 1])} is not a mapping"])
        at[keys[-1]] = parsed
        self.overridden.add(tuple(keys))

    def space(self, content: dict[str, Any]) -> SearchSpace:
        for key in content:
            if key not in TOP_LEVEL:
                self.problem((key,), f"unknown key {key!r}{nearest_top_level(key)}")
                self._leave_unsettled(key, content)
        fixed = self._sections(content)
        axes = self._axes(content.get("axes"))
        self._refuse_fixed_and_varied(fixed, axes)
        self._refuse_decided(fixed, axes)
        rest = {k: v for k, v in content.items() if k in TOP_LEVEL and k not in SECTIONS and k != "axes"}
        space = self._validated(rest | {"fixed": fixed, "axes": axes})
        self._check_sections(fixed, axes)
        self.stop_on_problems()
        assert space is not None  # noqa: S101 - no problems, so it was built
        n = math.prod(map(len, space.axes.values())) * space.replicates
        if n > _MOST_PAIRS:
            self.problem(("axes",), f"{n} pairs in all; one sweep has {_MOST_PAIRS} at most: make the grid coarser")
            self.stop_on_problems()
        written = {SHORT_FORMS[axis][0]: axis for axis in axes if axis in SHORT_FORMS}
        space = self._with_texts(_canonical(_without_short_forms(space)))
        self.stop_on_problems()
        for location, wrong in problems(space):
            names = [written.get(str(name), name) if at == 1 else name for at, name in enumerate(location)]
            self.problem(tuple(names) if location[0] == "axes" else location, wrong)
        self.stop_on_problems()
        return space

    def _with_texts(self, space: SearchSpace) -> SearchSpace:
        """The space with what its texts hold, and with absolute paths of their files."""
        if self.folders is None and all(spec.source in space.texts for spec, _ in _texts(space)):
            return space
        space = self._located(space, self.folders or folders_beside(Path(self.source)))
        self.stop_on_problems()
        texts: dict[str, TextContent] = {}
        for spec, indices in _texts(space):
            if spec.source not in texts:
                try:
                    texts[spec.source] = read_content(spec).known
                except TextError as error:
                    self.problem(origin("dataset", ("path",), indices), str(error))
        return space.model_copy(update={"texts": texts})

    def _located(self, space: SearchSpace, folders: Sequence[str]) -> SearchSpace:
        """The space with absolute paths of its texts' files."""
        fields = ("path", "second")

        def file(value: Any, at: Location) -> Any:
            if not isinstance(value, str):
                return value
            try:
                return found_file(value, folders)
            except TextError as error:
                hint = "name another" if at[0] == "axes" else f"name yours with --set {dotted(at)}=FILE"
                self.problem(at, f"{error}; {hint}")
                return value

        def section(values: Mapping[str, Any], at: Location) -> dict[str, Any]:
            return {name: file(value, (*at, name)) if name in fields else value for name, value in values.items()}

        fixed = {**space.fixed, **{n: section(v, (n,)) for n, v in space.fixed.items() if n == "dataset"}}
        axes = dict(space.axes)
        for axis, values in space.axes.items():
            if axis in fields:
                axes[axis] = tuple(file(value, ("axes", axis, at)) for at, value in enumerate(values))
            elif axis == "dataset":
                axes[axis] = tuple(section(value, ("axes", axis, at)) for at, value in enumerate(values))
        return space.model_copy(update={"fixed": fixed, "axes": axes})

    def _leave_unsettled(self, key: Any, content: dict[str, Any]) -> None:
        """What an unknown key may have been meant to say is not reported as missing."""
        meant = {name for name in close_to(key, TOP_LEVEL) if name not in content}
        self.unsettled |= {(name,) for name in (SECTIONS if "axes" in meant else meant)} | {(name,) for name in meant}

    def _sections(self, content: dict[str, Any]) -> Sections:
        fixed: Sections = {}
        for name in SECTIONS:
            section = _spelled_out(name, content.get(name))
            if not isinstance(section, dict):
                self.problem((name,), no_mapping((name,), section))
                self.unsettled |= {(name,), ("train",)} if name == "federated" else {(name,)}  # it decides the epochs
                section = {}
            fixed[name] = dict(section)
        return fixed

    def _axes(self, given: Any) -> dict[str, tuple[Any, ...]]:
        if ("axes",) in self.unsettled:
            return {}
        if not isinstance(given, dict) or not given:
            self.problem(("axes",), "name at least one axis, e.g. lr: [0.01, 0.1]")
            return {}
        axes: dict[str, tuple[Any, ...]] = {}
        for name, values in given.items():
            if name not in AXES and (sections := sections_with(name)):
                self.problem(("axes", name), f"cannot be varied; set {sections[0]}.{name}")
                continue
            if name not in AXES:
                self.problem(("axes", name), f"unknown axis{nearest(name, AXES)}")
                # So that the key that it was to vary is not reported as missing.
                self.unsettled |= {AXES[meant] for meant in close_to(name, AXES)}
                continue
            whole_section = len(AXES[name]) == 1
            axes[name] = tuple(
                _spelled_out(name, value) if whole_section else value for value in self._values(("axes", name), values)
            )
            if name in SHORT_FORMS and not self._check_short_form(name, axes[name]):
                axes[name] = ()
            if not axes[name]:
                self.unsettled.add(AXES[name] if name not in SHORT_FORMS else ("shift",))
        return axes

    def _check_short_form(self, name: str, values: Sequence[Any]) -> bool:
        """Whether all values of a short form's axis are possible."""
        before = len(self.problems)
        for index, value in enumerate(values):
            try:
                written_out(name, value)
            except ValueError as error:
                self.problem(("axes", name, index), str(error))
        return len(self.problems) == before

    def _values(self, place: Location, given: Any) -> list[Any]:
        """The values of one axis: a list, or a linear or logarithmic range."""
        if isinstance(given, list):
            if not given:
                self.problem(place, "an axis needs at least one value")
            if len(given) > _MOST_ON_AN_AXIS:
                self.problem(place, f"{len(given)} values on an axis; give {_MOST_ON_AN_AXIS} at most")
                return []
            for index, value in enumerate(given):
                if value in given[:index]:
                    self.problem((*place, index), f"{value!r} is given twice; remove one of them")
            return given
        kind = next((kind for kind in SPACINGS if isinstance(given, dict) and set(given) == {kind, "steps"}), None)
        if kind is None:
            self.problem(
                place, f"write a list, {{log: [low, high], steps: n}} or {{linear: ...}}; got {as_written(given)}"
            )
            return []
        bounds, steps = given[kind], given["steps"]
        numbers = isinstance(bounds, list) and len(bounds) == 2 and all(map(_is_number, bounds))
        if not numbers or not isinstance(steps, int) or steps < 2 or (kind == "log" and min(bounds) <= 0):
            above = " above 0" if kind == "log" else ""
            self.problem(place, f"needs two numbers{above} and steps of at least 2; got {as_written(given)}")
            return []
        if steps > _MOST_ON_AN_AXIS:
            self.problem(place, f"{steps} steps on an axis; ask for {_MOST_ON_AN_AXIS} at most")
            return []
        return spaced(kind, bounds, steps)

    def _refuse_fixed_and_varied(self, fixed: Sections, axes: dict[str, tuple[Any, ...]]) -> None:
        owners: dict[tuple[str, ...], str] = {}  # which axis varies a field
        for axis in axes:
            if (other := owners.setdefault(_meant(AXES[axis]), axis)) != axis:
                self.problem(("axes", axis), f"varies what axes.{other} varies; remove one of them")
                self.unsettled.add(AXES[axis][:1])
        for axis, values in axes.items():
            section, *field = AXES[axis]
            keys = field or {key for value in values if isinstance(value, dict) for key in value}
            varied = {_meant((section, key)) for key in keys}
            for key in sorted(key for key in fixed[section] if _meant((section, str(key))) in varied):
                if (section, key) in self.overridden and field == [key]:
                    value = json.dumps(fixed[section][key])
                    self.problem((section, key), f"is varied by axes.{axis}; to fix it, say axes.{axis}=[{value}]")
                else:
                    self.problem((section, key), f"is fixed here and varied by axes.{axis}; remove one of them")
                self.unsettled |= {(section,)} if section == "shift" else set()
            for index, value in enumerate(values if not field else ()):
                for key in sorted(value if isinstance(value, dict) else ()):
                    if owner := owners.get(_meant((section, key))):
                        self.problem(
                            ("axes", axis, index, key), f"is given here and varied by axes.{owner}; remove one"
                        )
                        self.unsettled |= {(section,)} if section == "shift" else set()

    def _refuse_decided(self, fixed: Sections, axes: dict[str, tuple[Any, ...]]) -> None:
        """Refuse what federations and ensembles decide themselves; values that change nothing may be there."""
        kind = group_kind(fixed, axes)
        if kind == "pair":
            return
        maker = _MADE_BY[kind]
        for index, value in enumerate(axes.get(maker, ())):
            if value == {}:
                needed = "clients and rounds" if kind == "federation" else "the family"
                self.problem(("axes", maker, index), f"is empty; say at least {needed}")
        plain: dict[str, Any] = {"steps": None, "target_loss": None, "spawn_epoch": 0, "kind": "none"}
        for section, fields in DECIDED[kind].items():
            said: dict[str, Location] = {key: (section, key) for key in fixed[section]}
            for axis in axes:
                if AXES[axis][0] == section:
                    said[AXES[axis][-1]] = ("axes", axis)
            for key, where in said.items():
                same = key in plain and where[0] == section and fixed[section][key] == plain[key]
                whole = section in RECIPE or (where == ("axes", section) and kind == "federation")
                if not same and (key in fields or whole):
                    self.problem(
                        where, f"cannot be set where there is {maker}: {_INSTEAD[kind][section]}; leave it out"
                    )
                    self.unsettled.add((section,))

    def _validated(self, fields: dict[str, Any]) -> SearchSpace | None:
        try:
            return SearchSpace.model_validate(fields)
        except ValidationError as error:
            for at, wrong in problems_of(error, SearchSpace):
                self.problem(at, wrong)
            return None

    def _check_sections(self, fixed: Sections, axes: dict[str, tuple[Any, ...]]) -> None:
        """Validate the sections at the first value of every axis, then every further value of each axis alone."""
        first = {axis: values[0] for axis, values in axes.items() if values}
        indices = dict.fromkeys(first, 0)
        self._check_point(fixed, first, indices)
        for axis, values in axes.items():
            for index, value in enumerate(values[1:], start=1):
                self._check_point(fixed, {**first, axis: value}, {**indices, axis: index})

    def _check_point(self, fixed: Sections, coordinates: dict[str, Any], indices: dict[str, int]) -> None:
        """Validate the sections at one point; what is unsettled is not reported."""
        for axis, index in indices.items():
            if len(AXES[axis]) == 1 and not isinstance(coordinates[axis], dict):
                where = ("axes", axis, index)
                self.problem(where, no_mapping(where, coordinates[axis]))
                return
        sections = place(fixed, coordinates)
        self._check_fields(sections, indices)
        for name, values in sections.items():
            spec = Spec if name in RECIPE and not values else section_spec(name, values)
            if spec is None:
                near = nearest(model_name(values), MODELS) or f"; choose from {', '.join(MODELS)}"
                self.problem(origin(name, ("name",), indices), f"unknown model {as_written(values['name'])}{near}")
                continue
            try:
                spec.model_validate(values)
            except ValidationError as error:
                for at, wrong in problems_of(error, spec):
                    if not self.unsettled & {(name,), (name, *at[:1])}:
                        self.problem(self._origin(name, at, indices, fixed, coordinates), wrong)

    def _check_fields(self, sections: Sections, indices: dict[str, int]) -> None:
        """Report fields that are not to be written, and a data set that nobody knows."""
        for name, values in sections.items():
            for field in sorted(FILLED_IN & values.keys()):
                self.problem(origin(name, (field,), indices), "is filled in when a space is read; leave it out")
        dataset, known = sections["dataset"].get("name", DatasetSpec().name), [*DATASETS, "text"]
        if isinstance(dataset, str) and dataset not in known:
            self.problem(
                origin("dataset", ("name",), indices), f"unknown data set {dataset!r}{nearest(dataset, known)}"
            )

    def _origin(
        self,
        section: str,
        location: tuple[str | int, ...],
        indices: dict[str, int],
        fixed: Sections,
        coordinates: Mapping[str, Any],
    ) -> Location:
        """Where a section's value was written: on an axis, or beside it; of a section that was not, its first axis."""
        whole = coordinates.get(section)
        if location and isinstance(whole, dict) and location[0] in fixed[section].keys() - whole.keys():
            return (section, *location)
        found = origin(section, location, indices)
        own = (axis for axis in indices if AXES[axis][0] == section)
        if found == (section,) and found not in self.lines and (axis := next(own, None)):
            return ("axes", axis, indices[axis])
        return found


def _texts(space: SearchSpace) -> Iterator[tuple[TextSpec, dict[str, int]]]:
    """The texts of a space, each with where on their axes its values are."""
    own = {axis: values for axis, values in space.axes.items() if AXES[axis][0] == "dataset"}
    for point in product(*(range(len(values)) for values in own.values())):
        indices = dict(zip(own, point, strict=True))
        section = place(space.fixed, {axis: own[axis][at] for axis, at in indices.items()})["dataset"]
        if data_kind(section) == "text":
            yield TextSpec.model_validate(section), indices


def _meant(place: tuple[str, ...]) -> tuple[str, ...]:
    """The field of a section that is written, in its short form or not."""
    return (
        ("shift", SHORT_FORMS[place[1]][0]) if place[0] == "shift" and place[1:] and place[1] in SHORT_FORMS else place
    )


def _without_short_forms(space: SearchSpace) -> SearchSpace:
    """The same space: the axis of a short form becomes that of the first field that it sets; its others are fixed."""
    axes: dict[str, tuple[Any, ...]] = {}
    shift = space.fixed["shift"]
    for axis, values in space.axes.items():
        if axis not in SHORT_FORMS:
            axes[axis] = values
            continue
        said = [written_out(axis, value) for value in values]
        varied, *same = SHORT_FORMS[axis]
        axes[varied] = tuple(one[varied] for one in said)
        shift = {**shift, **{field: said[0][field] for field in same}}
    return space.model_copy(update={"axes": axes, "fixed": {**space.fixed, "shift": shift}})


def _canonical(space: SearchSpace) -> SearchSpace:
    """Defaults filled in and short forms written out, in the fixed sections and on the axes."""
    varied = {AXES[axis] for axis in space.axes}
    decided = {("train", "epochs")} if space.group == "federation" else set()

    def filled_in(section: str, values: dict[str, Any]) -> dict[str, Any]:
        # A shift's defaults depend on its kind: where an axis varies the kind, each cell fills in its own.
        depends = section == "shift" and ("shift", "kind") in varied
        spec = section_spec(section, values)
        assert spec is not None  # noqa: S101 - checked before
        unsaid = section in RECIPE and not values
        full = values if depends or unsaid else spec.model_validate(values).model_dump(mode="json")
        left_out = varied | decided
        return {
            field: value for field, value in full.items() if (section, field) not in left_out and field not in FILLED_IN
        }

    def with_others(section: str, value: dict[str, Any]) -> dict[str, Any]:
        # A section may be impossible without the fields that other axes vary.
        own = {
            AXES[axis][1]: values[0]
            for axis, values in space.axes.items()
            if AXES[axis][1:] and AXES[axis][0] == section
        }
        return {**beside(section, space.fixed.get(section, {}), value), **own}

    axes = {
        axis: tuple(value if field else filled_in(section, with_others(section, value)) for value in values)
        for axis, values in space.axes.items()
        for section, *field in [AXES[axis]]
    }
    sections = place(space.fixed, {axis: values[0] for axis, values in axes.items()})
    fixed = {name: filled_in(name, sections[name]) for name in SECTIONS if (name,) not in varied}
    fixed.setdefault("train", {})
    return space.model_copy(update={"axes": axes, "fixed": fixed})


def _spelled_out(section: str, value: Any) -> Any:
    """``dataset: digits`` means ``dataset: {name: digits}``; an absent section is empty."""
    if value is None:
        return {}
    return {_NAMED_BY[section]: value} if section in _NAMED_BY and isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

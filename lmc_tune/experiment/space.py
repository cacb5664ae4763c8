"""Search spaces: axes, what is fixed, and the cells and pairs they span. Data, not code."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lmc_tune.experiment.data import DATA, SHORT_FORMS, ShiftSpec, data_kind
from lmc_tune.experiment.ensembles import SETTINGS, EnsembleSpec
from lmc_tune.experiment.federation import FederationSpec
from lmc_tune.experiment.group import GroupSpec
from lmc_tune.experiment.measuring import MeasureSpec
from lmc_tune.experiment.member import Perturbation
from lmc_tune.experiment.networks import MODELS, model_name
from lmc_tune.experiment.recipes import GroupKind
from lmc_tune.experiment.sources import Code
from lmc_tune.experiment.spec import Count, Seed, Spec
from lmc_tune.experiment.text import TextContent, TextSpec
from lmc_tune.experiment.training import TrainChanges, TrainSpec
from lmc_tune.experiment.verdict import VerdictSpec

# The space as it was run, in its run folder.
SPACE_FILE = "space.yaml"

# The specs that each section of a setting may hold; :func:`section_spec` says which.
SETTING: dict[str, tuple[type[Spec], ...]] = {
    "dataset": tuple(DATA.values()),
    "model": tuple(MODELS.values()),
    "train": (TrainSpec,),
    "shift": (ShiftSpec,),
}
# The sections that may change the recipe; an empty one changes nothing.
RECIPE: dict[str, tuple[type[Spec], ...]] = {
    "b": (TrainChanges,),
    "perturb": (Perturbation,),
    "federated": (FederationSpec,),
    "recipe": (EnsembleSpec,),
}
SECTIONS = SETTING | RECIPE
# Fields that are filled in, and not written.
FILLED_IN = frozenset({"code", "content", "part"})
# What an axis may vary: a whole section, or one field of a section by its bare name (`lr`, `norm`, `severity`), or by
# its full name in the recipe's sections (`b.lr`). A space that has been read has no axis of a short form.
AXES: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in SECTIONS if name != "train"},
    **{
        field: (section, field)
        for section, specs in SETTING.items()
        for spec in specs
        for field in spec.model_fields
        if field not in {"name", "engine", *FILLED_IN}
    },
    **{short: ("shift", short) for short in SHORT_FORMS},
    **{
        f"{name}.{field}": (name, field)
        for name, (spec,) in RECIPE.items()
        for field in spec.model_fields
        if field != "family"  # which says what other fields there are: recipe: [deep, {family: constrained, t: 5}]
    },
}

Sections = dict[str, dict[str, Any]]


# What the groups of a space decide themselves, by section: it cannot be set there.
DECIDED: dict[GroupKind, dict[str, tuple[str, ...]]] = {
    "pair": {},
    "federation": {
        "train": ("epochs", "steps", "target_loss", "spawn_epoch"),
        "shift": ("kind",),
        "b": (),
        "perturb": (),
        "recipe": (),
    },
    "ensemble": {"train": ("steps", "target_loss", "spawn_epoch"), "b": (), "perturb": ()},
}


def section_spec(section: str, values: Mapping[str, Any]) -> type[Spec] | None:
    """The spec that a section's values are to fill in; None for a model whose name is not known."""
    if section == "dataset":
        return DATA[data_kind(values)]
    return MODELS.get(model_name(values)) if section == "model" else SECTIONS[section][0]


def group_kind(fixed: Sections, axes: Mapping[str, Any]) -> GroupKind:
    """What the groups of a space are."""
    said = {name for name in RECIPE if fixed.get(name)} | {AXES[axis][0] for axis in axes}
    return "federation" if "federated" in said else "ensemble" if "recipe" in said else "pair"


class Cell(Spec):
    """One point of a space: its coordinates on the axes, and replicate 0 of its pairs."""

    coordinates: dict[str, Any]
    first: GroupSpec

    @property
    def key(self) -> str:
        """Identity of the cell, the ``cell`` column of the results table."""
        return self.first.key

    def pair(self, replicate: int) -> GroupSpec:
        """One of the cell's pairs."""
        return self.first.model_copy(update={"replicate": replicate})

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.coordinates.items())


class SearchSpace(Spec):
    """A whole study.

    fixed: sections (dataset, model, train, shift; b, perturb, federated, recipe) as plain mappings, without what the
        axes vary.
    axes: values by axis name, in the order in which cells are enumerated (the last axis varies fastest).
    replicates: pairs per cell. seed: base of every pair's seeds.
    members: keep or drop the trained weights; ``auto`` keeps them while they are small.
    code: of users' own networks, by factory; texts: of texts, by what they are made of
        (:attr:`~lmc_tune.experiment.text.TextSpec.source`); filled in when a file is read, and kept in the run folder.
    """

    name: Annotated[str, Field(max_length=120)]
    fixed: Sections
    axes: dict[str, tuple[Any, ...]]
    replicates: Count = 5
    seed: Seed = 0
    measure: MeasureSpec = MeasureSpec()
    verdict: VerdictSpec = VerdictSpec()
    members: Literal["auto", "keep", "drop"] = "auto"
    code: dict[str, Code] = Field(default_factory=dict)
    texts: dict[str, TextContent] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not name.strip(". ") or not name.isprintable() or set(name) & set("/\\"):
            raise ValueError(f"{name!r} cannot name a run folder; use letters, digits, '-' and '_'")
        return name

    @property
    def group(self) -> GroupKind:
        """What its groups are called."""
        return group_kind(self.fixed, self.axes)

    @property
    def factories(self) -> list[str]:
        """The factories that its networks name."""
        models = [self.fixed.get("model", {}), *self.axes.get("model", ())]
        named = {model["factory"] for model in models if "factory" in model}
        return sorted(named | set(self.axes.get("factory", ())))

    def cells(self) -> list[Cell]:
        """Every point of the grid.

        Raises:
            pydantic.ValidationError: if a combination of values is impossible.
        """
        own_axes = {name: [i for i, axis in enumerate(self.axes) if AXES[axis][0] == name] for name in SECTIONS}
        own_axes["train"] = [*own_axes["train"], *own_axes["federated"]]  # which says for how many epochs
        # Sections by the positions on their own axes: many cells share one, and building it is most of a cell's cost.
        known: dict[tuple[object, ...], Any] = {}
        cells = []
        for point in product(*(range(len(values)) for values in self.axes.values())):
            coordinates = {axis: values[at] for (axis, values), at in zip(self.axes.items(), point, strict=True)}
            places = {name: (name, *(point[i] for i in own_axes[name])) for name in SECTIONS}
            sections: dict[str, Any] = {name: known[at] for name, at in places.items() if at in known}
            if len(sections) < len(SECTIONS):
                sections = place(self.fixed, coordinates) | sections
            cells.append(self._cell(coordinates, sections))
            first = cells[-1].first
            known |= {at: getattr(first, name) if name in SETTING else sections[name] for name, at in places.items()}
        return cells

    def cell(self, coordinates: Mapping[str, Any]) -> Cell:
        """The cell at ``coordinates``, one value per axis."""
        return self._cell(coordinates, place(self.fixed, coordinates))

    def _cell(self, coordinates: Mapping[str, Any], sections: Mapping[str, Any]) -> Cell:
        model = sections["model"]
        if isinstance(model, dict) and (code := self.code.get(model.get("factory", ""))):
            sections = {**sections, "model": {**model, "code": code}}
        dataset = sections["dataset"]
        if isinstance(dataset, dict) and data_kind(dataset) == "text":
            text = TextSpec.model_validate(dataset)
            sections = {**sections, "dataset": text.model_copy(update={"content": self.texts.get(text.source)})}
        setting = {name: sections[name] for name in SETTING}
        recipe = {name: sections[name] for name in RECIPE if sections[name]}
        if sections["federated"]:
            recipe = {"recipe": "federated", **sections["federated"]}
        elif sections["recipe"]:
            recipe = {"recipe": "ensemble", **sections["recipe"]}
        first = GroupSpec.model_validate({**setting, "recipe": recipe, "replicate": 0, "seed": self.seed})
        return Cell(coordinates=dict(coordinates), first=first)

    def pairs(self) -> list[GroupSpec]:
        """Every pair of the grid, in the order in which they run."""
        return by_replicate(self.cells(), self.replicates)

    def plain(self) -> dict[str, Any]:
        """The space as it would be written in YAML, defaults filled in; reading it back gives the same space."""
        content = self.model_dump(mode="json", exclude={name for name in ("code", "texts") if not getattr(self, name)})
        fixed = {name: values for name, values in content.pop("fixed").items() if values or name in SETTING}
        return {"name": content.pop("name"), **fixed, **content}


def by_replicate(cells: Sequence[Cell], replicates: int) -> list[GroupSpec]:
    """The pairs of some cells, replicate by replicate, so that a sweep that is cut short has covered every cell."""
    return [cell.pair(k) for k in range(replicates) for cell in cells]


def place(fixed: Sections, coordinates: Mapping[str, Any]) -> Sections:
    """The sections with the axes' values put in; whole sections first, so that their fields can be varied too."""
    sections = {name: dict(fixed.get(name, {})) for name in SECTIONS}
    for axis, value in sorted(coordinates.items(), key=lambda item: len(AXES[item[0]])):
        section, *field = AXES[axis]
        if field:
            sections[section][field[0]] = value
        else:
            sections[section] = beside(section, sections[section], value)
    if sections["federated"]:
        return _federated(sections)
    return _usual(sections, _OF_ENSEMBLES) if sections["recipe"] else sections


def beside(section: str, fixed: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """A value of a whole section with what is fixed; of a recipe, with what its family has of that."""
    has = SETTINGS.get(value.get("family", ""), {}) if section == "recipe" else fixed
    return {name: own for name, own in fixed.items() if name in has or name not in _OF_FAMILIES} | dict(value)


# Settings that not all families have.
_OF_FAMILIES = frozenset(name for settings in SETTINGS.values() for name in settings)
# Usual of an ensemble, whose members would be equal otherwise.
_OF_ENSEMBLES: Sections = {"train": {"noise": "varied"}, "shift": {"kind": "none"}}


def _usual(sections: Sections, values: Sections) -> Sections:
    """The sections, with values for what they do not say."""
    return {name: {**values.get(name, {}), **given} for name, given in sections.items()}


def _federated(sections: Sections) -> Sections:
    """The sections of a federation: it decides how long its clients train, and which part of the data they see."""
    rounds, epochs = (sections["federated"].get(name, 1) for name in ("rounds", "local_epochs"))
    # Other values are reported where they are written.
    possible = all(isinstance(number, int) and number > 0 for number in (rounds, epochs))
    return _usual(sections, {"train": {"epochs": rounds * epochs if possible else 1}, "shift": {"kind": "none"}})

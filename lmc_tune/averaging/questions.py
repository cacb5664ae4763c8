"""What is asked of checkpoints besides their path: layers, directions, a plane; refused where it cannot be had."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from lmc_tune.averaging.paths import Condition
from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError
from lmc_tune.experiment import DirectionsSpec, PlanesSpec, SplitName
from lmc_tune.experiment.wording import in_words

# As in a search space, or True for what is usual.
Given = bool | Mapping[str, Any]
S = TypeVar("S", DirectionsSpec, PlanesSpec)

_DIRECTIONS: Mapping[str, Any] = {"random": {}, "noise": {}, "sharpness": {}}
# As mappings are written.
EXAMPLES = {"directions": "{random: {draws: 20}}", "planes": "{through: [a, b, start.pt]}"}


@dataclass(frozen=True, kw_only=True)
class Questions:
    """layers: whether they are measured. directions, planes: how; None if they are not.

    A plane's points are names of checkpoints, or files.
    """

    layers: bool = False
    directions: DirectionsSpec | None = None
    planes: PlanesSpec | None = None


def questions_of(  # noqa: PLR0913 - what is asked, and of what
    names: Sequence[str],
    *,
    layers: bool,
    directions: Given,
    planes: Given,
    conditions: Sequence[Condition] | None,
    trajectory: bool,
) -> Questions:
    """What is asked, checked before anything is read.

    Only test examples are scored unless ``splits`` says otherwise; noise is along the path and isotropic; and a plane
    goes through the checkpoints if there are three.

    Args:
        names: of the checkpoints.
        layers, directions, planes: what is asked.
        conditions: that are asked for.
        trajectory: whether the order of the checkpoints means something.

    Raises:
        UserError: naming the first question that cannot be answered of these checkpoints.
    """
    n = len(names)
    for what, given in (("layers", layers), ("trajectory", trajectory)):
        if not isinstance(given, bool):
            raise UserError(f"{what}: say True or False; got {given!r}")
    if n < 2:
        raise UserError(f"give two checkpoints at least, got {n}")
    for what, asked in (("layers", layers), ("directions", directions)):
        if asked and (n > 2 or trajectory):
            raise UserError(f"{what} are measured of two checkpoints, not of {n} or of a trajectory; name two")
    if layers and any(condition.statistics == "endpoint" for condition in conditions or ()):
        raise UserError(
            "layers and recipes are not measured under endpoint: a network with B's layers and A's statistics is no "
            "member to compare with; leave endpoint out of the conditions"
        )
    return Questions(
        layers=layers,
        directions=None if directions is False else _directions(directions),
        planes=None if planes is False else _planes(planes, names),
    )


def check_splits(questions: Questions, known: Mapping[SplitName, Any]) -> None:
    """Raise UserError if a question is asked of examples that there are not."""
    for name, spec in (("directions", questions.directions), ("planes", questions.planes)):
        if spec is not None and "train" in spec.splits and "train" not in known:
            raise UserError(f"{name} of train: there are no training examples; give train, or say splits: [test]")


def _directions(given: Given) -> DirectionsSpec:
    content = {"splits": ["test"], **(_DIRECTIONS if given is True else _mapping(given, "directions"))}
    if isinstance(content.get("noise"), Mapping):
        content["noise"] = {"kinds": ["path", "isotropic"], **content["noise"]}
    spec = _read(DirectionsSpec, content, "directions")
    if spec.noise is not None and spec.noise.needs_snapshots:
        raise UserError(
            "directions.noise in the span of training, and orthogonal to it, needs snapshots of the training, which "
            "checkpoints do not have; ask for kinds: [path, isotropic]"
        )
    return spec


def _planes(given: Given, names: Sequence[str]) -> PlanesSpec:
    content: dict[str, Any] = {"splits": ["test"], **({} if given is True else _mapping(given, "planes"))}
    _read(PlanesSpec, content, "planes")  # a misspelt key is named before what it was to say is missed
    if "through" not in content and len(names) < 3:
        raise UserError(
            "a plane goes through three checkpoints: name a third, or a file such as the start that the two have in "
            f"common, planes: {EXAMPLES['planes']}"
        )
    if "through" not in content and len(names) > 3:
        raise UserError(f"a plane goes through three: say which of the {len(names)}, e.g. {_through(names[:3])}")
    through = content.get("through", names)
    if isinstance(through, list | tuple):
        content["through"] = [_point(str(one), names) for one in through]
    return _read(PlanesSpec, content, "planes")


def _point(given: str, names: Sequence[str]) -> str:
    """The checkpoint that is meant, in capitals or not; else a file."""
    alike = [name for name in names if name.lower() == given.lower()]
    if given in names or len(alike) == 1:
        return given if given in names else alike[0]
    if not expanded(given).exists():
        raise UserError(f"planes: there is no checkpoint and no file {given!r}; the checkpoints are {', '.join(names)}")
    return given


def _through(names: Sequence[str]) -> str:
    return f"planes: {{through: [{', '.join(names)}]}}"


def _mapping(given: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise UserError(f"{name}: write a mapping as in a search space, e.g. {EXAMPLES[name]}; got {given!r}")
    return given


def _read(kind: type[S], content: Mapping[str, Any], name: str) -> S:
    try:
        spec = kind.model_validate(dict(content))
    except ValidationError as error:
        raise UserError(in_words(error, kind, (name,))) from error
    if "test" not in spec.splits:
        raise UserError(f"{name}: what is said of them rests on test examples; add test to splits")
    return spec

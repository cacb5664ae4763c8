"""Families of ensembles side by side, of any space."""

import json
from collections.abc import Sequence

from lmc_tune.errors import UserError
from lmc_tune.experiment.ensembles import FAMILIES, SETTINGS
from lmc_tune.experiment.reading import read_space
from lmc_tune.experiment.wording import nearest

# The part of all epochs that members have in common where nobody says: t / T of most studies of Lion et al. 2024.
COMMON_SHARE = 0.1


def with_families(
    space: str, sets: Sequence[str], families: Sequence[str], members: int | None = None, t: int | None = None
) -> list[str]:
    """The overrides under which a space has ensembles of several families in every cell.

    Args:
        space: a YAML file or a preset's name. One of ensembles keeps its families.
        sets: overrides that there are already.
        families: names, for a space of pairs.
        members: of each ensemble; None for what the space says, or what is usual.
        t: epochs in common; None for what the space says, or a tenth of all.

    Raises:
        UserError: if a family is unknown, or the space is of federations.
        SpaceError: listing every problem of the space.
    """
    said = [
        *sets,
        *([f"recipe.members={members}"] if members is not None else []),
        *([f"recipe.t={t}"] if t is not None else []),
    ]
    study = read_space(space, sets)
    if study.group == "ensemble":
        return said
    if study.group == "federation":
        raise UserError(f"{space} is of federations, whose clients are no ensemble; name a space of pairs or ensembles")
    if unknown := [family for family in families if family not in FAMILIES]:
        near = nearest(unknown[0], FAMILIES) or f"; choose from {', '.join(FAMILIES)}"
        raise UserError(f"there is no family {unknown[0]!r}{near}")
    epochs = [cell.first.train.epochs for cell in study.cells()]
    branch = any("t" in settings for family, settings in SETTINGS.items() if family in families)
    if branch and t is None and (known := [n for n in epochs if n is not None]):
        said.append(f"recipe.t={max(1, round(COMMON_SHARE * min(known)))}")
    # Members with one noise would be equal; and its folder is not that of the pairs.
    said += ["train.noise=varied"] if "noise" not in study.axes else []
    return [*said, f"axes.recipe=[{', '.join(families)}]", f"name={json.dumps(f'{study.name}_ensembles')}"]

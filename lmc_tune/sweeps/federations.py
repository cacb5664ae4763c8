"""Federations are checked against their networks before a sweep starts."""

from collections.abc import Iterable, Sequence

from lmc_tune.errors import UserError
from lmc_tune.experiment import Federated, GroupSpec
from lmc_tune.experiment.datasets import facts_of


def check_federations(pairs: Iterable[GroupSpec], folders: Sequence[str] = ()) -> None:
    """Refuse federations that average layers, or treat norms, which their network has not.

    Args:
        pairs: what is going to be run.
        folders: where factories are looked for.

    Raises:
        UserError: naming what fits no layer, and the layers there are; or that there is no BatchNorm.
    """
    looked_at = set()
    for pair in pairs:
        federation = pair.recipe
        if not isinstance(federation, Federated) or (isinstance(federation.average, str) and federation.norm is None):
            continue
        alike = pair.model.text, facts_of(pair.dataset).name, federation.average, federation.norm
        if alike not in looked_at:
            looked_at.add(alike)
            _check(pair, federation, folders)


def _check(pair: GroupSpec, federation: Federated, folders: Sequence[str]) -> None:
    from lmc_tune.measurement.network import Network  # noqa: PLC0415 - brings torch
    from lmc_tune.models.registry import build_model  # noqa: PLC0415
    from lmc_tune.training.federation import averaged_entries  # noqa: PLC0415

    facts = facts_of(pair.dataset)
    network = Network(build_model(pair.model, facts.shape, facts.n_classes, seed=0, folders=folders))
    try:
        averaged_entries(network, federation)
    except ValueError as error:
        raise UserError(f"federated.average: in {pair.model.label}, {error}") from error
    if federation.norm is not None and not network.norms:
        raise UserError(f"federated.norm is for BatchNorm, and {pair.model.label} has none; leave it out")

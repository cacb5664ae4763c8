"""Sets of layers that are to be moved alone are checked against the networks before a sweep starts."""

from collections.abc import Iterable, Sequence

from lmc_tune.experiment import GroupSpec, LayersSpec, MeasureSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.reading import SpaceError


def check_layers(pairs: Iterable[GroupSpec], measure: MeasureSpec, folders: Sequence[str] = ()) -> None:
    """Refuse patterns that no layer of any network matches, and a window that is wider than all networks.

    Of several networks, one may have what another has not: its pairs have these sets, and the others' do not.

    Args:
        pairs: what is going to be run.
        measure: what is asked of them.
        folders: where factories are looked for.

    Raises:
        SpaceError: naming the pattern and the layers there are, or the window.
    """
    asked = measure.layers
    if asked is None or not (asked.groups or asked.window):
        return
    networks = {(pair.model.text, facts_of(pair.dataset).name): pair for pair in pairs}
    found = [(pair.model.label, _layers(pair, folders)) for pair in networks.values()]
    if problems := list(_problems(asked, found)):
        raise SpaceError(problems)


def _layers(pair: GroupSpec, folders: Sequence[str]) -> list[str]:
    from lmc_tune.measurement.layerwise.layers import layers_of  # noqa: PLC0415 - brings torch
    from lmc_tune.models.contract import some_inputs  # noqa: PLC0415
    from lmc_tune.models.registry import build_model  # noqa: PLC0415

    facts = facts_of(pair.dataset)
    model = build_model(pair.model, facts.shape, facts.n_classes, seed=0, folders=folders)
    return [layer.name for layer in layers_of(model, some_inputs(2, facts.shape, facts.n_classes))]


def _problems(asked: LayersSpec, found: list[tuple[str, list[str]]]) -> Iterable[str]:
    from lmc_tune.measurement.layerwise.layers import matches  # noqa: PLC0415 - brings torch

    every = "; ".join(f"{label}: {', '.join(names)}" for label, names in found)
    for name, patterns in asked.groups.items():
        for pattern in patterns:
            if not any(matches(layer, pattern) for _, names in found for layer in names):
                yield f"measure.layers.groups.{name}: no layer is called {pattern!r}; there are {every}"
    widest = max(len(names) for _, names in found)
    if asked.window is not None and asked.window > widest:
        yield f"measure.layers.window: {asked.window} layers are more than the {widest} of a network; use fewer"

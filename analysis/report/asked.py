"""Charts that not every run has, and what its space has to ask for them."""

from collections.abc import Callable, Mapping

from lmc_tune.experiment import MeasureSpec
from lmc_tune.experiment.space import SearchSpace

# By the chart's name: the question as --set takes it, and whether a space asks it.
_QUESTIONS: Mapping[str, tuple[str, Callable[[MeasureSpec], bool]]] = {
    "conditions": ("measure.conditions=[naive, repaired]", lambda asked: len(asked.conditions or ()) > 1),
    "first_layer": ("measure.layers={}", lambda asked: asked.layers is not None),
    "layer_barriers": ("measure.layers={}", lambda asked: asked.layers is not None),
    "layer_maps": (
        "measure.layers.lambdas=5",
        lambda asked: asked.layers is not None and bool(asked.snapshots or asked.layers.lambdas != "midpoint"),
    ),
    "directions": (
        "measure.directions.random={}",
        lambda asked: asked.directions is not None and bool(asked.directions.random or asked.directions.noise),
    ),
    "sharpness": (
        "measure.directions.sharpness={}",
        lambda asked: asked.directions is not None and asked.directions.sharpness is not None,
    ),
    "planes": ("measure.planes={}", lambda asked: asked.planes is not None),
}
# What no question to the same pairs would change.
_STUDIES: Mapping[str, str] = {
    "rounds": "it is of federations, such as federated: {clients: 5, rounds: 5}",
    "networks": "it is of networks that vary, such as axes.hidden: [[64], [64, 64]]",
}


def why_no_chart(name: str, space: SearchSpace | None) -> str:
    """Why a run has no such chart, and what to ask; empty if that is not known.

    Args:
        name: of the chart.
        space: what was planned, if known.
    """
    if name not in _QUESTIONS:
        return _STUDIES.get(name, "")
    question, is_asked = _QUESTIONS[name]
    if space is not None and is_asked(space.measure):
        return f"its space asks for {question.partition('=')[0]}, and no counted pair has an answer"
    return f"its space does not ask for it; run the sweep again with --set '{question}'"

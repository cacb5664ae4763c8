"""The layers of networks along an axis, from the input."""

from collections.abc import Iterable

import altair as alt
import pandas as pd

from lmc_tune.analysis.wording import layer_words

# Between two names that are slanted, in pixels.
_LEAST = 17


def layers_in_words(places: Iterable[int], names: Iterable[str]) -> list[str]:
    """Layers as :func:`~lmc_tune.analysis.wording.layer_words` says them."""
    return [layer_words(place, name) for place, name in zip(places, names, strict=True)]


def layer_axis(field: str, table: pd.DataFrame, width: int, *, named: bool = True) -> alt.X:
    """Places along an axis, and the layers there; of many layers every second, third, … has room for its name.

    Args:
        field: the column of the places, from 1.
        table: it and ``layer``, as :func:`layers_in_words` gives them. Layers of several networks share a place.
        width: of the chart, in pixels.
        named: whether the layers are named; otherwise they are where another chart names them below.
    """
    names = table.drop_duplicates([field, "layer"]).groupby(field)["layer"].agg(" or ".join)
    last = int(names.index.max())
    places = range(1, last + 1, -(-_LEAST * last // width))
    axis = alt.Axis(
        values=list(places),
        labels=named,
        labelExpr=f"({ {str(place): names.get(place, f'#{place}') for place in places} })[datum.value]",
        labelAngle=-40,
        labelLimit=110,
        labelOverlap=False,
        grid=False,
    )
    scale = alt.Scale(domain=[0.5, last + 0.5], nice=False)
    return alt.X(f"{field}:Q", title="layer" if named else None, scale=scale, axis=axis)

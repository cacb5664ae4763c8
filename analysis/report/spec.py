"""Charts as Vega-Lite specs, each of their tables in it once."""

from collections.abc import Callable
from typing import Any

import altair as alt
import pandas as pd

from lmc_tune.analysis.report.columnar import pack, rows


def plain_spec(chart: Any) -> dict[str, Any]:
    """The spec as Vega-Lite reads it."""
    return _spec(chart, rows)


def packed_spec(chart: Any) -> dict[str, Any]:
    """The spec as the page unpacks it."""
    return _spec(chart, pack)


def _spec(chart: Any, as_data: Callable[[pd.DataFrame], Any]) -> dict[str, Any]:
    """The chart's spec with every table in it once, as ``as_data`` gives it.

    Altair itself would turn a table into rows for each of the layers that show it.
    """
    tables: list[pd.DataFrame] = []

    def refer(table: Any) -> dict[str, str]:
        if not any(table is known for known in tables):
            tables.append(table)
        return {"name": f"table-{next(at for at, known in enumerate(tables) if table is known)}"}

    alt.data_transformers.register("refer", refer)
    with alt.data_transformers.enable("refer", consolidate_datasets=False):
        spec: dict[str, Any] = chart.to_dict(validate=False)  # which took a third of a page's time; a test does it
    named = {f"table-{at}": as_data(table) for at, table in enumerate(tables)}
    return {**spec, "datasets": {**spec.get("datasets", {}), **named}}

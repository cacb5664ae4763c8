"""A part of the page."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Section:
    """A chart by its name, a table, or both."""

    id: str
    title: str
    lead: str = ""
    chart: str = ""
    label: str = ""
    table: pd.DataFrame | None = None

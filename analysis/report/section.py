"""A section of the report's page: a chart or a table with its words, for the template to set."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section.

    id: of the element that the chart is drawn in. title, lead: in words. note: what comes after chart and table.
    label: the chart in words, for those who do not see it. chart: an Altair chart, or None.
    table: in words, columns as headed; indexed by the cell's id if ``of_cells``. marked: the row of the page's own
        choice.
    """

    id: str
    title: str
    lead: str
    label: str = ""
    chart: Any = None
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    of_cells: bool = False
    marked: int | None = None
    note: str = ""

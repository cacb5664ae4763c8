"""Single layers along the path and during training, as heat maps."""

from lmc_tune.analysis.layers import layer_rises, layers_by_epoch
from lmc_tune.analysis.report.charts.layer_charts import epoch_table, heat_maps, rise_table
from lmc_tune.analysis.report.section import Context, Section
from lmc_tune.analysis.report.sections.layer_barriers import MOST_ROWS, ONE_CELL, places_of, shown_first
from lmc_tune.analysis.wording import quantity

ORDER = 66


def make(context: Context) -> Section | None:
    """None if single layers were neither scored on a grid of λ nor at snapshots."""
    heights, diagram = context.layer_heights, context.diagram
    if heights is None or heights.rows.empty:
        return None
    single = heights.rows[heights.rows["family"] == "single"]
    layers = single.drop_duplicates(["cell", "moved"])[["cell", "moved", "position"]]
    rises = rise_table(layer_rises(diagram, context.parts("layer_paths")), layers)
    epochs = epoch_table(layers_by_epoch(heights))
    if rises.empty and epochs.empty:
        return None
    cell, drawn = shown_first(context), set(diagram.cells["cell"])
    follows = len(rises) + len(epochs) <= MOST_ROWS
    kept = drawn if follows else {cell}
    rises, epochs = (table[table["cell"].isin(kept)] for table in (rises, epochs))
    along = f"Along the path: how far the {quantity(diagram.verdict)} rises with one layer at λ, means over the pairs. "
    during = (
        "During training: the barrier of every layer, of members as they were after so many epochs. Early members have "
        "learned little, and a flat path between them means nothing. "
    )
    return Section(
        id="layer_maps",
        title="Layers along the path and during training",
        lead="The cell that is shown, from the input (top) to the output. "
        + (along if len(rises) else "")
        + (during if len(epochs) else "")
        + "A rise is taken from the mean of the whole members: at λ = ½ it is the layer's barrier; at λ = 1 the layer "
        "is the other member's.",
        label="Rise of every layer along the path, and its barrier by epoch, in the cell that is shown",
        chart=heat_maps(rises, epochs, places_of(context), diagram.verdict, cell, follows=follows),
        note="" if follows else ONE_CELL.format(place=places_of(context)[cell], table="layer_paths.parquet"),
    )

"""What more members of an ensemble bring, and what lies between two of them."""

from lmc_tune.analysis.families import family_table, growth, pair_curves
from lmc_tune.analysis.report.charts.family_chart import members_chart
from lmc_tune.analysis.report.section import Context, Section

ORDER = 4.1
# More cells would be lines on top of each other.
MOST_CELLS = 24


def make(context: Context) -> Section | None:
    """None if there is no ok ensemble, or there are too many cells."""
    diagram = context.diagram
    if diagram.group != "ensemble" or (table := family_table(diagram)).empty or len(table) > MOST_CELLS:
        return None
    named = table[["cell", "name", "family"]]
    growing = named.merge(growth(diagram, context.parts("ensembles")), on="cell")
    curves = named.merge(pair_curves(diagram, context.parts("averages")), on="cell")
    if growing.empty:
        return None
    return Section(
        id="family_members",
        title="More members, and between them",
        lead="Left: accuracy of ensembles of so many members, mean over the subsets of each size and over the counted "
        "ensembles. Right: accuracy on the path between two members, less what the members' accuracies would average "
        "to; lines are means over pairs, bands reach from the lowest to the highest.",
        label="Accuracy by number of members, and accuracy along the paths between members",
        chart=members_chart(growing, curves),
    )

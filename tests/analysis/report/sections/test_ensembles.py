"""Average against ensemble: against loops over pairs."""

import math

import pytest

from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.cell_table import cell_places
from lmc_tune.analysis.report.sections.ensembles import (
    COLUMNS,
    ensemble_chart,
    ensemble_table,
    ensemble_words,
    gain_table,
    make,
)
from lmc_tune.experiment import GptSpec, TextSpec
from lmc_tune.experiment.text import TextContent
from tests.analysis.cases import grid, measured_pair, realistic_pair, results_of
from tests.analysis.measured import Measured, context_of


def test_average_and_ensemble_in_one_row(measured: Measured) -> None:
    table = ensemble_table(measured.diagram)
    assert len(table) == 16
    for row in table.to_dict("records"):
        pairs = measured.ok(row["cell"])
        members = [*pairs["test_accuracy_a"], *pairs["test_accuracy_b"]]
        assert row["member_accuracy"] == pytest.approx(sum(members) / len(members), abs=1e-12)
        for name in COLUMNS:
            assert row[name] == pytest.approx(sum(pairs[name]) / len(pairs), abs=1e-12)
    gains = gain_table(table)
    assert len(gains) == 2 * len(table)
    for row in gains.to_dict("records"):
        assert row["gain"] == pytest.approx(100 * row[f"{row['combined']}_gain_accuracy"])


def test_the_words_follow_the_pages_order_and_say_the_numbers(measured: Measured) -> None:
    places = cell_places(measured.diagram)
    table = ensemble_table(measured.diagram)
    words = ensemble_words(table, places)
    assert words.index.tolist() == [cell for cell in places.index if cell in set(table["cell"])]
    row, said = table.iloc[3], words.loc[table["cell"][3]]
    assert said["mean member"] == f"{100 * row['member_accuracy']:.1f}%"
    assert said["ensemble's gain"] == f"{100 * row['ensemble_gain_accuracy']:+.1f}"
    assert said["average's NLL"] == f"{row['average_nll']:.3g}"
    assert said["panel"] == row["panel"]


def test_without_both_there_is_no_section() -> None:
    diagram = map_regions(results_of([realistic_pair(spec) for spec in grid(replicates=2)]))
    assert make(context_of(diagram)) is None


def test_the_chart_shows_every_judged_cell(measured: Measured) -> None:
    table = ensemble_table(measured.diagram)
    spec = ensemble_chart(measured.diagram, gain_table(table), table["cell"][0]).to_dict()
    assert {row["cell"] for rows in spec["datasets"].values() for row in rows if "cell" in row} == set(table["cell"])


def test_of_text_perplexities_take_the_place_of_losses_so_that_the_table_fits_the_page() -> None:
    text = TextSpec(path="/corpus.txt", content=TextContent(hash="0", symbols=50, train=9999, test=999))
    specs = [spec.model_copy(update={"dataset": text, "model": GptSpec()}) for spec in grid(replicates=2)]
    diagram = map_regions(results_of([measured_pair(spec) for spec in specs]))
    table = ensemble_table(diagram)
    words = ensemble_words(table, cell_places(diagram))
    assert {name for name in words.columns if "NLL" in name} == {"average's gain in NLL", "ensemble's gain in NLL"}
    assert sum("perplexity" in name for name in words.columns) == 3
    for row in table.to_dict("records"):
        said = words.loc[row["cell"]]
        assert float(said["ensemble's perplexity"]) == pytest.approx(math.exp(row["ensemble_nll"]), rel=1e-3)
        pairs = diagram.pairs[diagram.pairs["cell"] == row["cell"]]
        members = (pairs["average_nll"] + pairs["average_gain_nll"]).mean()  # the gain is the members' less its own
        assert float(said["mean member's perplexity"]) == pytest.approx(math.exp(members), rel=1e-3)


def test_of_images_nothing_is_said_of_perplexity(measured: Measured) -> None:
    words = ensemble_words(ensemble_table(measured.diagram), cell_places(measured.diagram))
    assert not any("perplexity" in column for column in words.columns)

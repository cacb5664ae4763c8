"""What render writes: files, words, and nothing that could run or call home."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from lmc_tune.analysis import phase
from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report import View, cell_table
from lmc_tune.analysis.report import content as page_module
from lmc_tune.analysis.report import section as section_module
from lmc_tune.analysis.report import sections as own_sections
from lmc_tune.analysis.report.charts import curves
from lmc_tune.analysis.report.charts.learning import collect_learning
from lmc_tune.analysis.report.charts.phase_chart import letters
from lmc_tune.analysis.report.files import choose_files
from lmc_tune.analysis.report.render import read_sweep, render
from lmc_tune.analysis.report.studied import judgement, settings, studied
from lmc_tune.errors import UserError
from lmc_tune.experiment import MODELS, GroupSpec, ShiftSpec, VerdictSpec
from lmc_tune.tables.cells import mean_intervals
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import load_results
from lmc_tune.tables.sweep_record import SweepRecord, fingerprint
from tests.analysis.cases import (
    COVARIATE,
    NETWORKS,
    diverged_pair,
    failed_pair,
    grid,
    measured_pair,
    networks_space,
    ok_pair,
    pair_spec,
    realistic_pair,
    results_of,
    space_of,
    unpacked,
    write_run,
)
from tests.analysis.measured import Measured
from tests.extending import sections as toy

SCRIPTS = 8  # the theme, the data, Vega, and the page's own
HOSTILE = "</script><script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), grid(replicates=3), space=space_of(replicates=4))


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return render(folder)[0].read_text(encoding="utf-8")


def embedded(html: str) -> dict:
    """The page's data as its script unpacks them: rows of tables, and cells by their ids."""
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html, flags=re.DOTALL)
    assert found
    page = json.loads(found[1])
    for spec in page["charts"].values():
        spec["datasets"] = {name: unpacked(table) for name, table in spec["datasets"].items()}
    if "cells" not in page:  # of two runs
        return page
    bands = page["cells"]["curves"]
    page["cells"] = {
        row["cell"]: row | {"curves": {name: bands[name][at] for name in bands if bands[name][at]}}
        for at, row in enumerate(unpacked(page["cells"]["table"]))
    }
    return page


def test_formats_are_written_beside_the_page(folder: Path, tmp_path: Path) -> None:
    written = render(folder, tmp_path / "figures" / "phase.html", ["html", "png", "svg", "pdf"])
    assert [path.name for path in written] == ["phase.html", "phase.png", "phase.svg", "phase.pdf"]
    magic = (b"<!doctype html>", b"\x89PNG\r\n\x1a\n", b"<svg", b"%PDF-")
    for path, start in zip(written, magic, strict=True):
        content = path.read_bytes()
        assert content.startswith(start)
        assert len(content) > 20_000
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(path.name for path in written)
    assert "disconnected" in written[2].read_text(encoding="utf-8")


def test_all_cells_can_be_had_as_a_table(folder: Path, tmp_path: Path) -> None:
    (path,) = render(folder, tmp_path / "cells.csv")
    diagram = map_regions(load_results(folder), space=read_sweep(folder).space)
    read = pd.read_csv(path, dtype={"skew": "str"}, keep_default_na=False, na_values={"mean_barrier": [""]})
    assert read.columns[:5].tolist() == ["panel", "lr", "batch_size", "shift", "severity"]
    assert read.columns[6:10].tolist() == ["verdict", "mean_barrier", "low", "high"]
    known = diagram.cells.columns[diagram.cells.notna().any()]
    assert set(read.columns) == set(known)
    places = read[["panel", "batch_size", "lr"]].apply(tuple, axis="columns").tolist()
    assert places == sorted(places)
    mine = read.set_index("cell").loc[diagram.cells["cell"]]
    assert mine["verdict"].tolist() == diagram.cells["verdict"].tolist()
    np.testing.assert_array_equal(mine["mean_barrier"], diagram.cells["mean_barrier"])


def test_long_lists_end_early_and_say_what_is_left_out_and_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render(folder)[0].read_text(encoding="utf-8")
    assert "The first" not in whole
    entries = whole.count("<tr data-cell=") - 36
    for module in (page_module, cell_table):
        monkeypatch.setattr(module, "MOST_ROWS", 7)
    html = render(folder)[0].read_text(encoding="utf-8")
    assert html.count("<tr data-cell=") == 2 * 7
    assert "The first 7 of 36 cells, in the order of the panels. All cells, in full precision" in html
    assert f"The first 7 of {entries} entries, in the order of the panels. " in html
    first = re.findall(r'<tr data-cell="(\w+)"', whole)
    assert re.findall(r'<tr data-cell="(\w+)"', html) == first[:7] + first[36 : 36 + 7]
    assert len(embedded(html)["cells"]) == 36


def test_many_panels_are_counted_and_the_first_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shifts = [ShiftSpec(kind="label", severity=severity / 10) for severity in range(1, 9)]
    space = space_of((0.01, 0.1), (16, 64), shifts, replicates=1)
    folder = write_run(tmp_path, grid((0.01, 0.1), (16, 64), shifts[1:], replicates=1), space=space)
    diagram = map_regions(load_results(folder), space=space)
    assert diagram.drawn() is diagram
    with monkeypatch.context() as tight:
        tight.setattr(phase, "MOST_TILES", 12)
        assert diagram.drawn().panels == diagram.panels[1:4]  # nothing of the first panel has been run
    monkeypatch.setattr(phase, "MOST_PANELS", 3)
    html, svg = (path.read_text(encoding="utf-8") for path in render(folder, formats=["html", "svg"]))
    assert "Drawn: the first 3 of 8 panels. All cells, in full precision: lmc-tune report" in html
    assert "Drawn: the first 3 of 8 panels." in svg
    page = embedded(html)
    rows = [row for rows in page["charts"]["phase"]["datasets"].values() for row in rows if "verdict" in row]
    assert {row["panel"] for row in rows} == set(diagram.panels[1:4])
    assert set(page["cells"]) == {row["cell"] for row in rows}
    assert len(page["cells"]) == 12
    counted = re.search(r'<section id="panels">.*?</section>', html, flags=re.DOTALL)
    assert counted
    assert all(f"<td>{shift.label}</td>" in counted[0] for shift in shifts)


def test_curves_of_many_cells_are_thinned_and_the_page_says_so(
    folder: Path, html: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embedded(html)
    assert "too many cells to keep all curves" not in html
    for bound, points, kept in (
        ("MANY_CELLS", 11, {"test_error", "test_loss"}),
        ("VERY_MANY_CELLS", 5, {"test_error"}),
    ):
        monkeypatch.setattr(curves, bound, 10)
        text = render(folder)[0].read_text(encoding="utf-8")
        assert "too many cells to keep all curves" in text
        thinned = embedded(text)
        assert len(thinned["lambdas"]) == points
        assert {name for cell in thinned["cells"].values() for name in cell["curves"]} == kept
        step = 50 // (points - 1)
        for cell, detail in thinned["cells"].items():
            for name, band in detail["curves"].items():
                if 50 % (points - 1) == 0:
                    assert band == [line[::step] for line in whole["cells"][cell]["curves"][name]]
                assert [line[0] for line in band] == [line[0] for line in whole["cells"][cell]["curves"][name]]


def test_the_page_says_what_came_out(html: str) -> None:
    for text in (
        "108 of 144 pairs finished",
        "Of 36 cells, ",
        "Not finished: 36 cells with fewer than 4 pairs",
        "label 80/20",
        "a 95% interval of the mean over replicates",
        "mean, score interval with a moderated variance",
        "column test_error_barrier_chord",
        "the loss became non-finite",
        "train accuracy below the gate of 50.0%",
        "2.13.0",
        "local_minima",
        "space.yaml",
    ):
        assert text in html


def test_the_settings_name_what_the_space_has_and_no_more(folder: Path) -> None:
    sweep = read_sweep(folder)
    found = settings(map_regions(load_results(folder), x="lr", y="batch_size", space=sweep.space))
    assert list(found) == ["Varied", "Fixed", "Left at the default"]
    assert dict(found["Varied"])["batch size"] == "16, 64, 256"
    assert dict(found["Fixed"]) == {"dataset": "digits", "model": "mlp", "momentum": "0.9", "epochs": "20"}
    names = {name for rows in found.values() for name, _ in rows}
    assert {"learning rate", "hidden", "activation", "dropout", "crop", "schedule", "training examples"} <= names
    assert not {"depth", "shortcut", "patch", "factory"} & names
    assert not {"steps", "target loss", "learning rate of B", "scale of the disturbance"} & names


@pytest.mark.parametrize("network", sorted(MODELS.keys() - {"factory"}))
def test_every_network_has_its_usual_settings(network: str) -> None:
    spec = GroupSpec.model_validate(pair_spec().model_dump() | {"model": {"name": network}})
    found = settings(map_regions(results_of([ok_pair(spec, 0.1)])))
    assert dict(found["Fixed"])["model"] == network
    assert {name for name, _ in found["Left at the default"]} >= {"init", "weight decay"}


def test_the_page_stays_small_and_calls_nobody(html: str) -> None:
    assert len(html) < 2_500_000
    assert "default-src 'none'" in html
    assert not re.search(
        r"<(?:script|link|img|iframe)[^>]*(?:src|href)=", html.split('<script type="application/json"', maxsplit=1)[0]
    )


def test_every_cell_has_its_numbers_and_its_curves(html: str) -> None:
    page = embedded(html)
    assert len(page["cells"]) == 36
    with_curves = [cell for cell in page["cells"].values() if cell["curves"]]
    assert len(with_curves) > 20
    for cell in with_curves:
        assert {len(line) for band in cell["curves"].values() for line in band} == {len(page["lambdas"])} == {51}
    heights = {
        cell: float(shown["mean barrier"].removesuffix("%"))
        for cell, shown in page["cells"].items()
        if shown["verdict"] in ("connected", "disconnected", "undecided") and shown["curves"]
    }
    assert heights[page["picked"]] == max(heights.values()) > 20


def test_hostile_names_and_reasons_are_only_text(tmp_path: Path) -> None:
    def make(spec: GroupSpec) -> PairResult:
        return failed_pair(spec, HOSTILE) if spec.train.lr > 0.05 else realistic_pair(spec)

    folder = write_run(tmp_path, grid(lrs=(0.01, 0.03, 0.1), replicates=2), make=make, name=HOSTILE)
    space = folder / "space.yaml"
    space.write_text(f"{space.read_text()}# {HOSTILE}\n")
    html = render(folder)[0].read_text(encoding="utf-8")
    assert html.count("<script") == SCRIPTS
    assert "<img src=x" not in html
    assert "&lt;script&gt;window.hostile" in html
    assert any(HOSTILE in cell["reason"] for cell in embedded(html)["cells"].values())
    picture = ET.fromstring(render(folder, tmp_path / "phase.svg")[0].read_text(encoding="utf-8"))  # noqa: S314
    assert not [element.tag for element in picture.iter() if element.tag.endswith(("script", "img"))]
    assert any(HOSTILE in (element.text or "") for element in picture.iter())


def test_the_spaces_verdict_is_used(tmp_path: Path) -> None:
    verdict = VerdictSpec(of="test_loss", barrier="endpoint_mean", threshold=0.3)
    folder = write_run(tmp_path, grid(replicates=3), space=space_of(replicates=3, verdict=verdict))
    html = render(folder)[0].read_text(encoding="utf-8")
    assert "column test_loss_barrier_endpoint_mean" in html
    assert "0.3 nats" in html


def test_tables_alone_are_enough(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "my-run", grid(lrs=(0.01, 0.1), replicates=2))
    for name in ("space.yaml", "sweep.json", "paths.parquet"):
        (folder / name).unlink()
    html = render(folder)[0].read_text(encoding="utf-8")
    assert "<h1>my-run</h1>" in html
    assert "24 of 24 pairs finished" not in html
    assert "24 pairs finished" in html
    assert "space.yaml is not in the folder: all finished pairs are judged, by the default verdict" in html
    assert "curves" not in embedded(html)["charts"]


def test_an_unfinished_sweep_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path, grid(lrs=(0.01,), batch_sizes=(16, 64), replicates=2), space=space_of(replicates=2))
    html = render(folder)[0].read_text(encoding="utf-8")
    assert "8 of 72 pairs finished" in html
    assert "4 of 36 cells have been run: " in html
    assert "Not run: 32 planned cells, each an empty tile" in html
    assert "and 16 not run" in html
    assert len(embedded(html)["cells"]) == 4


def test_a_search_that_has_ended_is_complete_though_cells_were_left_out(tmp_path: Path) -> None:
    space = space_of(replicates=2)
    folder = write_run(tmp_path, grid(lrs=(0.01,), batch_sizes=(16, 64), replicates=2), space=space)
    replace(SweepRecord.read(folder), ended=fingerprint(space)).write(folder)
    html = render(folder)[0].read_text(encoding="utf-8")
    assert "8 pairs finished, 64 left out by the search" in html
    assert "Left out: 32 planned cells, each an empty tile in the diagram. The search has ended" in html
    assert "not finished" not in html


def test_pairs_of_another_space_are_counted_and_left_out(tmp_path: Path) -> None:
    def make(spec: GroupSpec) -> PairResult:
        return realistic_pair(spec) if spec.train.lr == 0.01 else failed_pair(spec, "of another space")

    space = space_of(lrs=(0.01,), replicates=2)
    folder = write_run(tmp_path, grid(lrs=(0.01, 0.1), replicates=2), make=make, space=space)
    html = render(folder)[0].read_text(encoding="utf-8")
    assert "12 of 12 pairs finished" in html
    assert "Left out: 12 finished pairs in this folder that space.yaml does not plan" in html
    assert "of another space" not in html
    assert set(embedded(html)["cells"]) == {cell.key for cell in space.cells()}


def test_a_space_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    file = write_run(tmp_path, grid(lrs=(0.01, 0.1), replicates=1)) / "space.yaml"
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    for n in range(len(lines)):
        file.write_text("".join(lines[:n]))
        with pytest.raises(UserError, match=f"{file} is damaged .* Restore it from a copy"):
            read_sweep(tmp_path)
    file.write_text(whole)
    assert read_sweep(tmp_path).space is not None


@pytest.mark.parametrize(
    ("specs", "charts"),
    [
        (grid(batch_sizes=(64,), replicates=3), {"phase", "curves", "noise", "basins", "similarity"}),
        (grid(lrs=(0.03,), batch_sizes=(64,), replicates=3), {"phase", "curves", "basins", "similarity"}),
        (
            grid(lrs=(0.03,), batch_sizes=(64,), shifts=(COVARIATE,), replicates=1),
            {"phase", "curves", "basins", "similarity"},
        ),
    ],
)
def test_one_axis_or_none_still_make_a_page(tmp_path: Path, specs: list[GroupSpec], charts: set[str]) -> None:
    page, picture = render(write_run(tmp_path, specs), formats=["html", "svg"])
    assert set(embedded(page.read_text(encoding="utf-8"))["charts"]) == charts
    assert "mean barrier of test error" in picture.read_text(encoding="utf-8")


def test_a_sweep_of_which_nothing_is_left_still_makes_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path, grid(lrs=(0.3, 1.0), replicates=2), make=diverged_pair)
    html = render(folder)[0].read_text(encoding="utf-8")
    assert "All 12 cells are diverged." in html
    assert set(embedded(html)["charts"]) == {"phase"}


def test_full_batches_are_left_out_of_the_noise_chart_not_of_the_page(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path, grid(lrs=(0.01, 0.1), batch_sizes=(64, 700), replicates=3), make=lambda s: ok_pair(s, 0.1)
    )
    page = embedded(render(folder)[0].read_text(encoding="utf-8"))
    noise = {row["cell"] for rows in page["charts"]["noise"]["datasets"].values() for row in rows if "cell" in row}
    assert (len(noise), len(page["cells"])) == (4, 8)


@pytest.mark.parametrize(
    ("out", "formats", "names"),
    [
        (None, None, ["run/report.html"]),
        (None, ["svg", "html"], ["run/report.svg", "run/report.html"]),
        ("x", None, ["x.html"]),
        ("x.html", None, ["x.html"]),
        ("x.png", None, ["x.png"]),
        ("x.png", ["html", "png"], ["x.html", "x.png"]),
        ("lr0.1", ["pdf"], ["lr0.1.pdf"]),
        ("figures", None, ["figures/report.html"]),
        ("figures", ["png"], ["figures/report.png"]),
        ("new/", None, ["new/report.html"]),
        ("new.d/", ["svg", "html"], ["new.d/report.svg", "new.d/report.html"]),
    ],
)
def test_the_name_chooses_the_format(
    tmp_path: Path, out: str | None, formats: list[str] | None, names: list[str]
) -> None:
    for existing in ("run", "figures"):
        (tmp_path / existing).mkdir()
    files = choose_files(tmp_path / "run", "report", None if out is None else f"{tmp_path}/{out}", formats)
    assert list(files.values()) == [tmp_path / name for name in names]
    assert [path.suffix for path in files.values()] == [f".{name}" for name in files]


def test_what_cannot_be_written_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "x.svg", tmp_path / "file" / "deeper" / "x.svg", "/dev/null/x.svg"):
        with pytest.raises(UserError, match=f"cannot write {out} .*choose another place with -o"):
            render(folder, out)
    (tmp_path / "report.svg").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        render(folder, tmp_path, ["svg"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.svg"]


def test_a_folder_that_is_not_there_is_made_where_its_slash_says_so(folder: Path, tmp_path: Path) -> None:
    (path,) = render(folder, f"{tmp_path}/not/there.yet/", ["csv"])
    assert path == tmp_path / "not" / "there.yet" / "report.csv"
    assert path.is_file()


ALL_SECTIONS = ["networks", "conditions", "noise", "basins", "similarity", "ensembles", "layers"]


def sections(html: str) -> list[str]:
    return re.findall(r'<section id="(\w+)-section"', html)


def test_what_the_tables_have_is_shown(measured: Measured) -> None:
    html = render(measured.store.folder)[0].read_text(encoding="utf-8")
    assert sections(html) == ALL_SECTIONS
    page = embedded(html)
    assert set(page["charts"]) == {"phase", "curves", "learning", *ALL_SECTIONS}
    for text in ("mlp 64-64-64 batch norm", "This page judges recalibrated", "estimated at every λ"):
        assert text in html
    assert html.count('class="judged"') == 2  # the definition and the condition
    assert len(re.findall(r'<tr data-cell="\w+"', html.split('id="ensembles-section"')[1].split("</section>")[0])) == 16


def test_what_the_tables_do_not_have_is_left_out(html: str) -> None:
    assert sections(html) == ["noise", "basins", "similarity"]
    assert "learning" not in embedded(html)["charts"]


def test_of_too_many_cells_details_are_left_out_and_the_page_says_so(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(section_module, "MOST_DETAILED", 15)
    monkeypatch.setattr(sys.modules[render.__module__], "MANY_CELLS", 15)
    html = render(measured.store.folder)[0].read_text(encoding="utf-8")
    assert sections(html) == ["noise", "layers"]
    assert "Too many cells for the sections on networks, conditions, basins" in html
    assert "learning" not in embedded(html)["charts"]


def test_a_file_in_another_folder_is_a_section_at_its_place(folder: Path, html: str, tmp_path: Path) -> None:
    (path,) = render(folder, tmp_path / "toy.html", sections=(own_sections, toy))
    found = path.read_text(encoding="utf-8")
    assert sections(found) == ["noise", "steps", "basins", "similarity"]
    before, section, after = re.split(r'(<section id="steps-section">.*?</section>\n)', found, flags=re.DOTALL)
    (link,) = re.findall(r'<a href="#steps-section">.*?</a> ', before)
    assert before.replace(link, "") + after == html
    results = load_results(folder)
    ok = results[results["status"] == "ok"]
    for cell, steps in ok.groupby("cell")["steps"]:
        assert f'<tr data-cell="{cell}"><td>{steps.mean() / 1000:.3f}</td></tr>' in section


def test_the_sections_share_their_intervals_and_none_is_made_that_nobody_asks_for(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def counted(pairs: pd.DataFrame, columns: list[str], *others: object) -> dict[str, pd.DataFrame]:
        asked.append(sorted(columns))
        return mean_intervals(pairs, columns, *others)

    monkeypatch.setattr(section_module, "mean_intervals", counted)
    render(measured.store.folder)
    assert asked == [["accuracy_difference", "basin_depth", "naive_barrier", "recalibrated_barrier"]]
    monkeypatch.setattr(section_module, "MOST_DETAILED", 15)
    render(measured.store.folder)
    assert len(asked) == 1


def test_the_learning_curves_of_the_cells_are_in_the_page(measured: Measured) -> None:
    html = render(measured.store.folder)[0].read_text(encoding="utf-8")
    found = re.search(r'id="page-data">(.*?)</script>', html, flags=re.DOTALL)
    assert found
    learning = json.loads(found[1])["cells"]["learning"]
    expected = collect_learning(measured.diagram.pairs, measured.store.parts("curves"))
    assert set(learning) == set(expected)
    for cell, lines in learning.items():
        np.testing.assert_allclose(lines, expected[cell], atol=1e-4)


def test_the_table_of_cells_has_the_new_means(measured: Measured, tmp_path: Path) -> None:
    (path,) = render(measured.store.folder, tmp_path / "cells.csv")
    read = pd.read_csv(path)
    for name in ("naive_barrier", "recalibrated_barrier", "cka", "jensen_shannon", "ensemble_gain_accuracy"):
        mine = read.set_index("cell")[name].loc[measured.diagram.cells["cell"]]
        np.testing.assert_allclose(mine, measured.diagram.cells[name])


def test_hostile_networks_and_layers_are_only_text(tmp_path: Path) -> None:
    def hostile(spec: GroupSpec) -> PairResult:
        pair = measured_pair(spec)
        layers = [{**layer, "layer": f"{HOSTILE}{layer['layer']}"} for layer in pair.tables["layers"]]
        return replace(pair, tables={**pair.tables, "layers": layers})

    space = networks_space(NETWORKS[:2], replicates=2)
    html = render(write_run(tmp_path, space.pairs(), make=hostile, space=space))[0].read_text(encoding="utf-8")
    assert html.count("<script") == SCRIPTS
    assert "<img src=x" not in html
    layers = embedded(html)["charts"]["layers"]["datasets"]
    assert any(HOSTILE in row["layer"] for rows in layers.values() for row in rows)


def test_bad_calls_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.png is not a name for html, svg"):
        render(folder, tmp_path / "x.png", ["html", "svg"])
    with pytest.raises(UserError, match="'jpg' is no format; end the name in one of html, png, svg, pdf, csv"):
        render(folder, tmp_path / "x.jpg")
    with pytest.raises(UserError, match="unknown format 'jpg'; choose from html, png, svg, pdf, csv"):
        render(folder, formats=["jpg"])
    with pytest.raises(FileNotFoundError, match="no results in"):
        render(tmp_path)


def test_the_header_says_what_was_studied(folder: Path, html: str) -> None:
    line = (
        "digits, 700 training examples per member · mlp 64 · sgd, learning rate 0.003 to 1, batch size 16 to 256, "
        "momentum 0.9, 20 epochs · shift: covariate and label 80/20 · 3 pairs per cell"
    )
    assert studied(map_regions(load_results(folder), space=read_sweep(folder).space)) == line
    assert f'<p class="studied">{line}</p>' in html
    assert "begun 2026-11-20 08:00 UTC" in html


def test_the_condition_that_is_judged_is_told_apart_from_those_measured(folder: Path, measured: Measured) -> None:
    plain = dict(judgement(map_regions(load_results(folder), space=read_sweep(folder).space)))
    assert plain["condition that is judged"].startswith("naive: the networks have no BatchNorm")
    assert plain["conditions that were measured"] == "naive"
    mixed = dict(judgement(measured.diagram))
    assert mixed["condition that is judged"].startswith("recalibrated; naive for networks without BatchNorm")
    assert mixed["conditions that were measured"] == "naive, recalibrated"


def test_numbers_of_a_column_have_one_precision() -> None:
    assert cell_table.evenly(pd.Series([0.003, 0.00959, 1.0, np.nan])) == ["0.0030", "0.0096", "1.0000", "–"]
    assert cell_table.evenly(pd.Series([16, 256])) == ["16", "256"]
    assert cell_table.evenly(pd.Series([0.0, -0.5, 2.25])) == ["0.00", "−0.50", "2.25"]


def test_cells_can_be_judged_otherwise_and_the_folder_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    before = (folder / "space.yaml").read_bytes()
    view = View(threshold=0.3, confidence=0.9, barrier="midpoint")
    html, csv = (path.read_text() for path in render(folder, tmp_path / "x", ["html", "csv"], view=view))
    assert "Judged otherwise than space.yaml says: barrier midpoint instead of chord, threshold 30% instead" in html
    assert "a 90% interval of the mean over replicates" in html
    read = pd.read_csv(tmp_path / "x.csv")
    assert set(read["threshold"]) == {0.3}
    expected = map_regions(
        load_results(folder), verdict=view.judging(VerdictSpec()), space=read_sweep(folder).space
    ).cells["verdict"]
    assert sorted(read["verdict"]) == sorted(expected)
    assert csv.startswith("panel,lr,batch_size")
    assert (folder / "space.yaml").read_bytes() == before


def test_other_axes_and_what_there_is_not(folder: Path, tmp_path: Path) -> None:
    assert View(x="batch_size").axes == ("batch_size", "lr")
    assert View(y="lr").axes == ("batch_size", "lr")
    assert View(x="epochs").axes == ("epochs", "batch_size")
    (path,) = render(folder, tmp_path / "x.csv", view=View(x="batch_size"))
    assert pd.read_csv(path).columns[1:3].tolist() == ["batch_size", "lr"]
    for view, said in (
        (View(x="lrr"), "'lrr' is not a numeric column of the spec; did you mean lr?"),
        (View(x="weight_decay"), "--x weight_decay: it is the same in all cells; choose from lr, batch_size"),
        (View(condition="repaired"), "no pair of this run was measured under --condition repaired"),
        (View(barrier="cord"), "--barrier: should be 'chord'"),
        (View(threshold=-1.0), "--threshold: should be greater than 0, got -1.0"),
        (View(threshold=2.0), "threshold 2 is no error: errors are fractions, so write 0.02 for 2%"),
        (
            View(x="severity"),
            "--x severity: it varies from one kind of shift to another, not within one; choose",
        ),
        (
            View(chart="nose"),
            "there is no chart 'nose' of this run; choose from phase, curves, noise, basins, similarity",
        ),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            render(folder, tmp_path / "x.svg", view=view)
    for view in (View(width=85.0), View(chart="noise")):
        with pytest.raises(UserError, match="is for pictures; add --formats png, svg or pdf"):
            render(folder, tmp_path / "x.html", view=view)
    assert not list(tmp_path.glob("x.[sh]*"))


def test_a_report_that_judges_otherwise_does_not_replace_the_folders_own(folder: Path) -> None:
    own = render(folder)[0]
    before = own.read_bytes()
    assert render(folder, view=View(threshold=0.3))[0].name == "report-view.html"
    assert render(folder, view=View(theme="dark"), out=folder / "dark.svg")[0].name == "dark.svg"
    assert own.read_bytes() == before


def test_paths_that_are_gone_are_said(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert "No curves" not in render(copy)[0].read_text(encoding="utf-8")
    (copy / "paths.parquet").unlink()
    shutil.rmtree(copy / "shards", ignore_errors=True)
    assert "No curves: paths.parquet is not in the folder" in render(copy)[0].read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "beside"), [(170.0, True), (85.0, False)])
def test_a_picture_is_as_wide_as_a_column_of_a_paper(folder: Path, tmp_path: Path, width: float, beside: bool) -> None:  # noqa: FBT001
    svg, pdf = render(folder, tmp_path / "x", ["svg", "pdf"], view=View(theme="paper", width=width))
    root = ET.fromstring(svg.read_text(encoding="utf-8"))  # noqa: S314
    assert root.get("width") == f"{width:g}mm"
    drawn = float((root.get("viewBox") or "").split()[2])
    assert drawn == pytest.approx(width / 25.4 * 96, abs=6)  # so that type keeps its size
    box = re.search(rb"MediaBox ?\[0 0 ([\d.]+)", pdf.read_bytes())
    assert box
    assert float(box[1]) == pytest.approx(width / 25.4 * 72, abs=0.5)
    heights = float(root.get("height", "").removesuffix("mm")) / width
    assert (heights < 1.2) == beside
    assert "quickstart" not in svg.read_text(encoding="utf-8")


def test_every_chart_of_the_page_can_be_a_picture(measured: Measured, tmp_path: Path) -> None:
    titles = {"phase": "quickstart", "curves": "Interpolation curves at", "learning": "Learning curves at"}
    for chart in ("phase", "curves", "learning", *ALL_SECTIONS):
        svg = render(measured.store.folder, tmp_path / f"{chart}.svg", view=View(chart=chart))[0].read_text("utf-8")
        assert titles.get(chart, "quickstart: ") in svg
        assert svg.count("<path") > 5
        if chart in ("curves", "learning"):
            assert all(f">{split}</text>" in svg for split in ("test", "train"))


def test_any_chart_can_be_a_picture_in_any_theme(folder: Path, tmp_path: Path) -> None:
    for chart in ("noise", "basins", "similarity"):
        light, dark = (
            render(folder, tmp_path / f"{theme}.svg", view=View(chart=chart, theme=theme))[0].read_text()
            for theme in ("light", "dark")
        )
        assert light != dark
        assert "#15191c" in dark
        assert "#15191c" not in light


@pytest.mark.parametrize(
    ("verdict", "apart", "beside", "letter"),
    [
        ("connected", False, False, "C"),
        ("connected", True, False, "C/D"),
        ("disconnected", True, True, "D/C*"),
        ("undecided", False, True, "?*"),
        ("diverged", False, False, "×"),
        ("not run", np.nan, np.nan, "–"),
    ],
)
def test_marks_of_a_tile(verdict: str, *, apart: bool, beside: bool, letter: str) -> None:
    assert letters({"verdict": verdict, "split_apart": apart, "beside_diverged": beside}) == letter


def test_the_page_says_where_the_other_split_says_the_opposite(tmp_path: Path) -> None:
    def make(spec: GroupSpec) -> PairResult:
        pair = ok_pair(spec, 0.0)
        if spec.train.lr > 0.05:
            for row in pair.tables["barriers"]:
                row["train_error_barrier_chord"] = 0.3 + 0.01 * spec.replicate
        return pair

    folder = write_run(tmp_path, grid(lrs=(0.01, 0.1), replicates=5), make=make)
    html, csv = (path.read_text(encoding="utf-8") for path in render(folder, tmp_path / "x", ["html", "csv"]))
    n = len([row for row in pd.read_csv(tmp_path / "x.csv").to_dict("records") if row["lr"] == 0.1])
    assert f"On train error, of {2 * n} connected cells {n} are disconnected." in html
    assert "C/D: connected on test, disconnected on train." in html
    assert html.count('<td class="number">32.0% D</td>') == n
    assert set(pd.read_csv(tmp_path / "x.csv").query("lr == 0.1")["on_train"]) == {"disconnected"}
    assert csv.count("disconnected") == n

"""The answer as a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lmc_tune.analysis.report.cell_table import numeric
from lmc_tune.analysis.report.charts.matrix_chart import matrix_chart
from lmc_tune.analysis.report.charts.path_chart import path_chart
from lmc_tune.analysis.report.charts.profile_chart import profile_chart
from lmc_tune.analysis.report.content import LONG_TABLE
from lmc_tune.analysis.report.html import html_page
from lmc_tune.analysis.report.spec import packed_spec
from lmc_tune.analysis.report.view import View
from lmc_tune.analysis.wording import LETTERS, UNKNOWN, perplexity
from lmc_tune.averaging.answer import Answer
from lmc_tune.averaging.answer_many import interval_words
from lmc_tune.averaging.findings import Aligned, LayerFindings, PairFindings, Quality
from lmc_tune.averaging.layer_text import layer_lead, layer_rows, layer_sentences, named
from lmc_tune.averaging.many import Basins, ManyFindings
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.section import Section
from lmc_tune.averaging.surroundings_page import direction_sections, plane_section
from lmc_tune.averaging.text import shown_path
from lmc_tune.averaging.wording import bounds, decimals, height, percentage, plain_number, quantity_name
from lmc_tune.core.barrier import DEFINITIONS
from lmc_tune.measurement.layerwise.sets import Family

# What is half-way in a panel of the profile.
_PANELS: Mapping[Family, str] = {
    "single": "one layer half-way",
    "shallow": "all layers up to this one half-way",
    "deep": "all layers from this one on half-way",
}


def pair_page(found: PairFindings, answer: Answer) -> str:
    """The page of two checkpoints: answer, conditions, path, networks, definitions, alignment, files."""
    names = [Path(member.file).name if member.file else member.name for member in found.members]
    sections = [
        Section(id="conditions", title="Conditions side by side", table=_conditions(found)),
        Section(
            id="path",
            title="The path",
            lead=f"Means over the examples at every λ; shaded: the {100 * found.judging.confidence:g}% band of what is "
            f"judged, at all λ at once.",
            chart="along",
            label="Error and loss along the path under every condition; barriers are in the tables",
        ),
        Section(id="networks", title="What the average is worth", lead=_apart(found), table=_networks(found, answer)),
        Section(
            id="definitions",
            title="Every definition of the barrier",
            lead="Of the mean curve. chord is judged; the others are what papers report.",
            table=_definitions(found),
        ),
    ]
    charts = {"along": path_chart(path_table(found))}
    if found.layers is not None:
        sections.append(_layers(found, found.layers))
        percent = found.judging.quantity == "error"
        profile = profile_table(found.layers, found.judging.quantity)
        charts["profile"] = profile_chart(profile, found.judging.threshold, percent=percent)
    for section, chart in _around(found):
        sections.append(section)
        charts |= {section.chart: chart} if section.chart else {}
    if found.alignments:
        sections.append(Section(id="alignment", title="Alignment", table=_alignments(found.alignments)))
    if any(member.took for member in found.members):
        files = pd.DataFrame([{"network": member.name, "read": member.took or UNKNOWN} for member in found.members])
        sections.append(Section(id="files", title="Files", table=files))
    return _page(found, answer, " and ".join(names), sections, charts)


def many_page(found: ManyFindings, answer: Answer) -> str:
    """The page of several checkpoints: answer, a map of barriers per condition, networks and soups."""
    sections, charts = [], {}
    barriers = [judged.barrier for basins in found.basins for judged in basins.judged.values()]
    most = max(2 * found.judging.threshold, *(barrier for barrier in barriers if np.isfinite(barrier)))
    for at, basins in enumerate(found.basins):
        charts[f"map-{at}"] = matrix_chart(
            matrix_table(found, basins), found.names, most, percent=found.judging.quantity == "error"
        )
        sections.append(
            Section(
                id=f"matrix-{at}",
                title=f"Barriers, {basins.condition.label}",
                lead=_groups(found, basins),
                chart=f"map-{at}",
                label="The barrier between every two networks; the same numbers are in the table of pairs",
            )
        )
    sections += [
        Section(
            id="soups",
            title="Soups",
            lead="The greedy soup takes members in the order of how good they are, and keeps those that do not make "
            f"it worse on {found.chosen_on} test examples; both are measured on the other {found.measured_on}.",
            table=_soups(found),
        ),
        Section(id="networks", title="Networks", table=_all_networks(found)),
        Section(id="pairs", title="Pairs", table=_all_pairs(found)),
    ]
    for section, chart in _around(found):
        sections.append(section)
        charts |= {section.chart: chart} if section.chart else {}
    return _page(found, answer, f"{len(found.names)} networks", sections, charts)


def _page(
    found: PairFindings | ManyFindings, answer: Answer, title: str, sections: list[Section], charts: Mapping[str, Any]
) -> str:
    return html_page(
        "measurement.html.j2",
        {
            "charts": {name: packed_spec(chart) for name, chart in charts.items()},
            "exports": {},
            "renderer": "svg",
        },
        View(),
        {
            "kicker": "Can these networks be averaged?",
            "title": title,
            "answer": answer.in_short,
            "reasons": answer.reasons,
            "judged": _how(found),
            "notes": found.notes,
            "sections": sections,
            "numeric": numeric,
            "long_table": LONG_TABLE,
        },
    )


def many_summary(found: ManyFindings, answer: Answer) -> str:
    """Answer, reasons and networks, for a notebook."""
    return _summary(answer, _all_networks(found))


def pair_summary(found: PairFindings, answer: Answer) -> str:
    """Answer, reasons and conditions, for a notebook."""
    return _summary(answer, _conditions(found))


def _summary(answer: Answer, table: pd.DataFrame) -> str:
    items = Markup("").join(Markup("<li>{}</li>").format(reason) for reason in answer.reasons)
    rows = Markup(table.to_html(index=False, border=0))  # noqa: S704 - pandas escapes what it holds
    return str(Markup("<p><b>{}</b></p><ul>{}</ul>{}").format(answer.in_short, items, rows))


def matrix_table(found: ManyFindings, basins: Basins) -> pd.DataFrame:
    """Every pair in both orders, as :func:`~lmc_tune.analysis.report.charts.matrix_chart.matrix_chart` takes it."""
    rows = []
    for (i, j), judged in basins.judged.items():
        words = interval_words(found, basins, (i, j))
        for first, second in ((i, j), (j, i)):
            rows.append(
                {
                    "first": found.names[first],
                    "second": found.names[second],
                    "barrier": judged.barrier if np.isfinite(judged.barrier) else np.nan,
                    "letter": LETTERS[judged.verdict],
                    "words": f"{words}, {judged.verdict}",
                }
            )
    return pd.DataFrame(rows)


def path_table(found: PairFindings) -> pd.DataFrame:
    """The curves as :func:`~lmc_tune.analysis.report.charts.path_chart.path_chart` takes them."""
    tables = []
    for split in found.paths[0].judged:
        for quantity in ("error", "loss"):
            for path in found.paths:
                if (split, quantity) not in path.means:
                    continue
                mean, band = path.means[split, quantity], path.judged[split].band
                chord = mean[0] * (1 - path.lambdas) + mean[-1] * path.lambdas
                judged = quantity == found.judging.quantity and band is not None
                blank = np.full(len(mean), np.nan)
                unit = "" if quantity == "error" else f" ({found.unit})" if found.unit else ""
                tables.append(
                    pd.DataFrame(
                        {
                            "panel": f"{split} {quantity}{unit}",
                            "condition": path.condition.label,
                            "lambda": path.lambdas,
                            "value": np.where(np.isfinite(mean), mean, np.nan),
                            "low": chord + band.low if judged and band is not None else blank,
                            "high": chord + band.high if judged and band is not None else blank,
                            "percent": quantity == "error",
                        }
                    )
                )
    return pd.concat(tables, ignore_index=True)


def profile_table(layers: LayerFindings, quantity: Quantity) -> pd.DataFrame:
    """The sets of layers as :func:`~lmc_tune.analysis.report.charts.profile_chart.profile_chart` takes them."""
    rows: list[dict[str, Any]] = []
    for one in layers.sets:
        if one.moved.family == "full":
            continue
        band = one.judged["test"].band
        rows.append(
            {
                "panel": _PANELS[one.moved.family],
                "layer": named(one.moved),
                **{what: np.nan if band is None else getattr(band, what)[1] for what in ("mean", "low", "high")},
                **{base: rises["test", quantity] for base, rises in one.from_base.items()},
            }
        )
    return pd.DataFrame(rows).rename(columns={"mean": "value"})


def _layers(found: PairFindings, layers: LayerFindings) -> Section:
    sentences = "; ".join(layer_sentences(found, layers))
    return Section(
        id="layers",
        title="Layer by layer",
        lead=f"{layer_lead(found, layers)} {sentences[0].upper()}{sentences[1:]}. Letters: A and B by themselves.",
        chart="profile",
        label="Rises of single layers and of the first and last ones; the table has the same numbers",
        table=pd.DataFrame(layer_rows(found, layers)),
    )


def _around(found: PairFindings | ManyFindings) -> list[tuple[Section, Any]]:
    """What lies around the networks: sections, each with its chart."""
    what = quantity_name(found.judging, found.metric)
    directions = found.directions if isinstance(found, PairFindings) else None
    sections = [] if directions is None else direction_sections(directions, found.judging, what)
    return sections if found.planes is None else [*sections, plane_section(found.planes, found.judging, what)]


def _how(found: PairFindings | ManyFindings) -> str:
    n = found.paths[0].judged["test"].n if isinstance(found, PairFindings) else found.chosen_on + found.measured_on
    what = quantity_name(found.judging, found.metric)
    return (
        f"Judged by the chord barrier of the {what} on {n} test examples: connected if the whole "
        f"{100 * found.judging.confidence:g}% interval lies below {height(found.judging.threshold, found.judging)}."
    )


def _groups(found: ManyFindings, basins: Basins) -> str:
    named = ["{" + ", ".join(found.names[member] for member in group) + "}" for group in basins.groups]
    letters = ", ".join(f"{letter} {verdict}" for verdict, letter in LETTERS.items() if verdict != "diverged")
    return f"{letters}. In one basin: {'; '.join(named)}."


def _soups(found: ManyFindings) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "soup": name,
                "members": ", ".join(found.names[member] for member in soup.members),
                found.judging.quantity: height(soup.value, found.judging),
                "less the best member's": height(soup.to_best.mean, found.judging),
                "its interval": bounds(soup.to_best.low, soup.to_best.high, found.judging),
            }
            for name, soup in (("uniform", found.uniform), ("greedy", found.greedy))
        ]
    )


def _all_networks(found: ManyFindings) -> pd.DataFrame:
    rows = []
    for name, took, quality in zip(found.names, found.took, found.qualities, strict=True):
        row = {"network": name}
        for (split, what), number in quality.means.items():
            row[f"{split} {what}"] = percentage(number) if what == "error" else plain_number(number)
        rows.append(row | {"read": took or UNKNOWN})
    return pd.DataFrame(rows)


def _all_pairs(found: ManyFindings) -> pd.DataFrame:
    rows = []
    for basins in found.basins:
        for (i, j), judged in basins.judged.items():
            row = {
                "condition": basins.condition.label,
                "a": found.names[i],
                "b": found.names[j],
                "on test": judged.verdict,
                "barrier": height(judged.barrier, found.judging),
                "interval": bounds(judged.low, judged.high, found.judging),
            }
            if (i, j) in basins.on_train:
                row["on train"] = basins.on_train[i, j].verdict
            rows.append(row)
    return pd.DataFrame(rows)


def _conditions(found: PairFindings) -> pd.DataFrame:
    rows = []
    for path in found.paths:
        row = {"condition": path.condition.label}
        for split, judged in path.judged.items():
            row |= {
                f"on {split}": judged.verdict,
                f"barrier on {split}": height(judged.barrier, found.judging),
                f"interval on {split}": bounds(judged.low, judged.high, found.judging),
            }
        judged_value = path.average.means["test", found.judging.quantity]
        to_mean = path.to_mean
        row |= {
            "average": height(judged_value, found.judging),
            "less the members' mean": height(to_mean.mean, found.judging),
            "its interval": bounds(to_mean.low, to_mean.high, found.judging),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _networks(found: PairFindings, answer: Answer) -> pd.DataFrame:
    chosen = shown_path(found, answer)
    rows = [(member.name, member.quality) for member in found.members]
    rows.append((f"average, {chosen.condition.label}", chosen.average))
    if found.ensemble is not None:
        rows.append(("ensemble of both", found.ensemble))
    return pd.DataFrame([{"network": name, **_quality(found, quality)} for name, quality in rows]).fillna(UNKNOWN)


def _quality(found: PairFindings, quality: Quality) -> dict[str, str]:
    if found.judging.quantity != "error":
        return {f"{split} {found.metric}": plain_number(number) for (split, _), number in quality.means.items()}
    known = {}
    for (split, what), number in quality.means.items():
        if what == "error":
            known[f"{split} accuracy"] = percentage(1 - number)
        else:
            known[f"{split} loss"] = decimals(number)
            if found.text:
                known[f"{split} perplexity"] = perplexity(number)
    if quality.brier is not None and quality.ece is not None:
        known |= {"Brier score": decimals(quality.brier), "calibration error": percentage(quality.ece)}
    return known


def _apart(found: PairFindings) -> str:
    said = f"Distance of the weights {plain_number(found.distance)}, cosine {decimals(found.cosine)}"
    if found.disagreement is not None:
        said += f"; the members predict another class on {100 * found.disagreement:.1f}% of the test examples"
    return f"{said}."


def _definitions(found: PairFindings) -> pd.DataFrame:
    rows = []
    for path in found.paths:
        for (split, quantity), barriers in path.barriers.items():
            row = {"condition": path.condition.label, "curve": f"{split} {quantity}"}
            for definition in DEFINITIONS:
                top = barriers[definition].height
                row[definition] = percentage(top) if quantity == "error" else decimals(top)
            rows.append(row)
    return pd.DataFrame(rows)


def _alignments(alignments: tuple[Aligned, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "matched by": aligned.method,
                "units moved": f"{aligned.moved} of {aligned.units}",
                "distance after": plain_number(aligned.distance),
                "objective": plain_number(aligned.objective),
                "of the identity": plain_number(aligned.identity),
                "of all starts": ", ".join(map(plain_number, aligned.objectives)) or UNKNOWN,
                "cannot move": "; ".join(aligned.frozen) or "nothing",
            }
            for aligned in alignments
        ]
    )

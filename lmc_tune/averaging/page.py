"""The answer as a page."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from lmc_tune.analysis.report.cell_table import numeric
from lmc_tune.analysis.report.charts.path_chart import path_chart
from lmc_tune.analysis.report.html import html_page
from lmc_tune.analysis.report.spec import packed_spec
from lmc_tune.analysis.report.view import View
from lmc_tune.analysis.wording import UNKNOWN
from lmc_tune.averaging.answer import Answer
from lmc_tune.averaging.findings import Aligned, PairFindings, Quality
from lmc_tune.averaging.text import shown_path
from lmc_tune.averaging.wording import bounds, decimals, height, percentage, plain_number
from lmc_tune.core.barrier import DEFINITIONS


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a chart by its name, a table, or both."""

    id: str
    title: str
    lead: str = ""
    chart: str = ""
    label: str = ""
    table: pd.DataFrame | None = None


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
            chart="curves",
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
    if found.alignments:
        sections.append(Section(id="alignment", title="Alignment", table=_alignments(found.alignments)))
    if any(member.took for member in found.members):
        files = pd.DataFrame([{"network": member.name, "read": member.took or UNKNOWN} for member in found.members])
        sections.append(Section(id="files", title="Files", table=files))
    data = {"charts": {"curves": packed_spec(path_chart(path_table(found)))}, "exports": {}, "renderer": "svg"}
    return html_page(
        "measurement.html.j2",
        data,
        View(),
        {
            "kicker": "Can these networks be averaged?",
            "title": " and ".join(names),
            "answer": answer.in_short,
            "reasons": answer.reasons,
            "judged": _judged(found),
            "notes": found.notes,
            "sections": sections,
            "numeric": numeric,
        },
    )


def pair_summary(found: PairFindings, answer: Answer) -> str:
    """Answer, reasons and conditions, for a notebook."""
    items = Markup("").join(Markup("<li>{}</li>").format(reason) for reason in answer.reasons)
    table = Markup(_conditions(found).to_html(index=False, border=0))  # noqa: S704 - pandas escapes what it holds
    return str(Markup("<p><b>{}</b></p><ul>{}</ul>{}").format(answer.in_short, items, table))


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


def _judged(found: PairFindings) -> str:
    judged = found.paths[0].judged["test"]
    what = "error" if found.judging.quantity == "error" else found.metric
    return (
        f"Judged by the chord barrier of the {what} on {judged.n} test examples: connected if the whole "
        f"{100 * found.judging.confidence:g}% interval lies below {height(found.judging.threshold, found.judging)}."
    )


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

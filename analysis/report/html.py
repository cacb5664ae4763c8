"""HTML pages that work offline: templates, filled in, with scripts, styles and data inside them."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lmc_tune.analysis.report.charts.style import DARK_VERDICTS, THEMES, VERDICT_COLOURS
from lmc_tune.analysis.report.view import View

TEMPLATE = Path(__file__).parent / "template"


def html_page(template: str, data: Mapping[str, Any], view: View, words: Mapping[str, Any]) -> str:
    """A page.

    Args:
        template: the name of its file.
        data: for its scripts, as JSON.
        view: in which theme it is asked for.
        words: what the template sets in type, by the name it uses.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            **words,
            colours=VERDICT_COLOURS,
            dark_verdicts=DARK_VERDICTS,
            dark=THEMES["dark"],
            theme="light" if view.theme == "paper" else view.theme or "",
            vega=Markup(_vega().replace("</script", "<\\/script")),  # noqa: S704 - a library's own code
            data=_embedded({**data, "dark": THEMES["dark"]}),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["asset"] = lambda name: Markup((TEMPLATE / name).read_text(encoding="utf-8"))  # noqa: S704 - our own
    return environment


@cache
def _vega() -> str:
    """Vega and all that draws with it, as one script. It takes a second to make."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script


def prepare() -> None:
    """Do now what takes the same time for every page, besides importing this module."""
    _vega()


def _embedded(content: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028"))  # noqa: S704 - escaped here

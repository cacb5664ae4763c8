"""The report: one self-contained page, and pictures of its charts; of one run, or of two side by side."""

from lmc_tune.analysis.report.compare import render_comparison
from lmc_tune.analysis.report.html import prepare
from lmc_tune.analysis.report.render import render
from lmc_tune.analysis.report.view import View

__all__ = ["View", "prepare", "render", "render_comparison"]

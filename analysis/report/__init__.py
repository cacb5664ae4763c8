"""The report: one self-contained page, and pictures of its charts."""

from lmc_tune.analysis.report.render import render
from lmc_tune.analysis.report.view import View

__all__ = ["View", "render"]

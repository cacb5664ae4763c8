"""The report: one self-contained page, and pictures of its diagram."""

from lmc_tune.analysis.report.render import render

__all__ = ["render"]

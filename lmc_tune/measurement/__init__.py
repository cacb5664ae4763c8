"""Measuring the straight path between two trained members."""

from lmc_tune.measurement.path import Path, measure_path

__all__ = ["Path", "measure_path"]

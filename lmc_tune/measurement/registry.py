"""Everything that is measured of finite members, in order."""

from lmc_tune.measurement.measurement import Measurement
from lmc_tune.measurement.path import Paths
from lmc_tune.measurement.similarity import Similarity

MEASUREMENTS: tuple[Measurement, ...] = (Paths(), Similarity())

"""Everything that is measured of finite members, in order."""

from lmc_tune.measurement.directions import Directions
from lmc_tune.measurement.layerwise.layer_barriers import LayerBarriers
from lmc_tune.measurement.measurement import Measurement
from lmc_tune.measurement.path import Paths
from lmc_tune.measurement.planes import Planes
from lmc_tune.measurement.similarity import Similarity

MEASUREMENTS: tuple[Measurement, ...] = (Paths(), LayerBarriers(), Similarity(), Directions(), Planes())

"""What is to be run, as frozen data, without torch: a whole experiment can be read here."""

from lmc_tune.experiment.data import CORRUPTIONS, Bands, Corruption, DatasetSpec, Domain, OtherDataset, ShiftSpec
from lmc_tune.experiment.group import Cohort, GroupSpec
from lmc_tune.experiment.measuring import (
    ALIGNED,
    CONDITIONS,
    SAME_WITHOUT_BATCH_NORM,
    AlignmentSpec,
    Condition,
    MeasureSpec,
    Split,
    Statistics,
    condition_column,
    condition_name,
    statistics_of,
)
from lmc_tune.experiment.member import SCHEMA_VERSION, Branch, MemberSpec, PartSpec, Perturbation, part_of
from lmc_tune.experiment.networks import (
    MODELS,
    FactorySpec,
    MlpSpec,
    ModelSpec,
    NetworkSpec,
    ResnetSpec,
    VggSpec,
    VitSpec,
    model_name,
)
from lmc_tune.experiment.recipes import Pair
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.training import PER_MEMBER, TrainChanges, TrainSpec
from lmc_tune.experiment.verdict import PathSplit, VerdictSpec, barrier_column

__all__ = [
    "ALIGNED",
    "CONDITIONS",
    "CORRUPTIONS",
    "MODELS",
    "PER_MEMBER",
    "SAME_WITHOUT_BATCH_NORM",
    "SCHEMA_VERSION",
    "AlignmentSpec",
    "Bands",
    "Branch",
    "Cohort",
    "Condition",
    "Corruption",
    "DatasetSpec",
    "Domain",
    "FactorySpec",
    "GroupSpec",
    "MeasureSpec",
    "MemberSpec",
    "MlpSpec",
    "ModelSpec",
    "NetworkSpec",
    "OtherDataset",
    "Pair",
    "PartSpec",
    "PathSplit",
    "Perturbation",
    "ResnetSpec",
    "ShiftSpec",
    "Spec",
    "Split",
    "Statistics",
    "TrainChanges",
    "TrainSpec",
    "VerdictSpec",
    "VggSpec",
    "VitSpec",
    "barrier_column",
    "condition_column",
    "condition_name",
    "model_name",
    "part_of",
    "statistics_of",
]

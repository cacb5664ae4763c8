"""What is to be run, as frozen data. No torch, no files: the page on which a whole experiment can be read."""

from lmc_tune.experiment.data import CORRUPTIONS, Bands, Corruption, DatasetSpec, Domain, OtherDataset, ShiftSpec
from lmc_tune.experiment.measuring import BATCH_NORM_CONDITIONS, Condition, MeasureSpec, Split, condition_column
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
from lmc_tune.experiment.pair import SCHEMA_VERSION, Cohort, PairSpec
from lmc_tune.experiment.spec import Spec
from lmc_tune.experiment.training import PER_MEMBER, TrainSpec
from lmc_tune.experiment.verdict import VerdictSpec

__all__ = [
    "BATCH_NORM_CONDITIONS",
    "CORRUPTIONS",
    "MODELS",
    "PER_MEMBER",
    "SCHEMA_VERSION",
    "Bands",
    "Cohort",
    "Condition",
    "Corruption",
    "DatasetSpec",
    "Domain",
    "FactorySpec",
    "MeasureSpec",
    "MlpSpec",
    "ModelSpec",
    "NetworkSpec",
    "OtherDataset",
    "PairSpec",
    "ResnetSpec",
    "ShiftSpec",
    "Spec",
    "Split",
    "TrainSpec",
    "VerdictSpec",
    "VggSpec",
    "VitSpec",
    "condition_column",
    "model_name",
]

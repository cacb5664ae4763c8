"""Any space with ensembles of several families in every cell."""

import pytest

from lmc_tune.errors import UserError
from lmc_tune.experiment.families import with_families
from lmc_tune.experiment.reading import SpaceError, read_space

FAMILIES = ["deep", "constrained", "distilled"]


def test_a_space_of_pairs_gets_its_families():
    study = read_space("quickstart", with_families("quickstart", ["replicates=2"], FAMILIES, members=3))
    before = read_space("quickstart", ["replicates=2"])
    assert study.group == "ensemble"
    assert study.name == "quickstart_ensembles", "its folder is not that of the pairs"
    assert len(study.cells()) == len(before.cells()) * len(FAMILIES)
    recipes = {cell.first.recipe.family: cell.first.recipe for cell in study.cells()}
    assert list(recipes) == FAMILIES
    assert {recipe.members for recipe in recipes.values()} == {3}
    (epochs,) = {cell.first.train.epochs for cell in before.cells()}
    assert recipes["constrained"].t == max(1, round(epochs / 10))


def test_epochs_in_common_can_be_said():
    (t,) = {
        cell.first.recipe.t
        for cell in read_space("quickstart", with_families("quickstart", [], ["constrained"], t=3)).cells()
    }
    assert t == 3


def test_a_space_of_ensembles_keeps_its_families():
    name = "basin_resnet20_cifar10_small"
    assert with_families(name, ["replicates=2"], FAMILIES) == ["replicates=2"]
    study = read_space(name, with_families(name, [], FAMILIES, members=4))
    assert {cell.first.recipe.members for cell in study.cells()} == {4}
    assert len(study.cells()) == 7


def test_what_has_no_families_is_refused():
    with pytest.raises(UserError, match="there is no family 'constraned'; did you mean constrained"):
        with_families("quickstart", [], ["constraned"])
    with pytest.raises(UserError, match="of federations, whose clients are no ensemble"):
        with_families("federated_dirichlet_small", [], FAMILIES)
    with pytest.raises(SpaceError, match="no such file and no such preset"):
        with_families("quickstar", [], FAMILIES)

"""Sets of layers that no network has are refused before anything is trained or written."""

import pytest

from lmc_tune.experiment.reading import SpaceError, parse_space
from lmc_tune.sweeps.moved_layers import check_layers
from tests.sweeps.cases import lmc_tune, write_space

SPACE = """
name: tiny
dataset: {train: 200, test: 100}
train: {epochs: 1, batch_size: 10}
axes:
  model: [{hidden: [8]}, {hidden: [8], norm: batch}]
  lr: [0.01, 0.1]
measure: {layers: LAYERS}
"""


def check(layers: str) -> None:
    space = parse_space(SPACE.replace("LAYERS", layers))
    check_layers(space.pairs(), space.measure)


@pytest.mark.parametrize("layers", ["{}", "{window: 3}", "{groups: {hidden: linear*, norms: [norm1]}}"])
def test_sets_that_some_network_has_are_taken(layers):
    check(layers)


@pytest.mark.parametrize("depths", ["2, 1", "1, 2"])
def test_networks_of_one_factory_are_told_apart(tmp_path, depths):
    (tmp_path / "stacks.py").write_text(
        "from torch import nn\n\n\ndef stack(input_shape, n_classes, depth):\n"
        "    return nn.Sequential(nn.Flatten(), *[nn.Linear(64, 64) for _ in range(depth)], nn.Linear(64, n_classes))\n"
    )
    one, other = depths.split(", ")
    models = ", ".join(f"{{factory: 'stacks:stack', arguments: {{depth: {depth}}}}}" for depth in (one, other))
    axes = f"model: [{models}]"
    text = SPACE.replace("LAYERS", "{groups: {third: ['3']}}").replace(
        "model: [{hidden: [8]}, {hidden: [8], norm: batch}]", axes
    )
    space = parse_space(text)
    check_layers(space.pairs(), space.measure, [str(tmp_path)])


def test_a_pattern_that_no_layer_matches_is_named_with_the_layers_there_are():
    with pytest.raises(
        SpaceError, match=r"groups.hidden: no layer is called 'blocks\*'; there are mlp 8: linear1, head"
    ):
        check("{groups: {hidden: [linear*, blocks*]}}")


def test_a_window_wider_than_every_network_is_refused():
    with pytest.raises(SpaceError, match=r"window: 4 layers are more than the 3 of a network"):
        check("{window: 4}")


@pytest.mark.parametrize("command", ["sweep", "space"])
def test_nothing_is_written(tmp_path, command):
    file = write_space(tmp_path, SPACE.replace("LAYERS", "{groups: {hidden: blocks*}}"))
    done = lmc_tune(command, file, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "no layer is called 'blocks*'" in done.stderr
    assert not (tmp_path / "out").exists()

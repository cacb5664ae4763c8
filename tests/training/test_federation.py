"""The laws of federated averaging, on real trainings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lmc_tune.data.examples import Part
from lmc_tune.experiment import FederationSpec, LayersSpec, TrainSpec
from lmc_tune.measurement.conditions import recalibrated
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.layerwise.sets import layer_sets
from lmc_tune.measurement.network import Network
from lmc_tune.training.engines import train
from lmc_tune.training.federation import Client, Federation, average, averaged_entries, federate, shares
from lmc_tune.training.loop import train_member
from tests.cases import blobs, network, state, task

WHOLE, TEST = blobs(120), blobs(30, seed=1)
SPEC = {"lr": 0.1, "batch_size": 5, "schedule": "cosine", "warmup": 0.2, "weight_decay": 0.01}


def client(positions, *, model=None, federation: FederationSpec, noise: int = 3, **spec) -> Client:
    given = TrainSpec(**(SPEC | {"epochs": federation.epochs} | spec))
    whole = task(model or network(0, norm=True), WHOLE, TEST, given, noise)
    part = np.asarray(positions, dtype=np.int64)
    return Client(task=replace(whole, positions=torch.from_numpy(part)), own=Part(whole=WHOLE, indices=part))


def federation(clients: int, **fields) -> FederationSpec:
    return FederationSpec.model_validate({"clients": clients, "rounds": 3, "local_epochs": 2, **fields})


def run(clients: list[Client], spec: FederationSpec, **kwargs) -> list:
    everything = Part(whole=WHOLE, indices=np.arange(len(WHOLE)))
    whole = Federation(
        spec=spec, network=Network(clients[0].task.model), clients=clients, everything=everything, test=TEST
    )
    return list(federate(whole, looped, **kwargs))


def looped(tasks):
    return train(tasks, "loop")


def thirds(spec: FederationSpec, **kwargs) -> list[Client]:
    """Unlike clients: of 60, 40 and 20 examples, with noise of their own."""
    model = network(0, norm=True)
    cuts = np.split(np.random.default_rng(0).permutation(120), [60, 100])
    return [client(part, model=model, federation=spec, noise=n, **kwargs) for n, part in enumerate(cuts)]


def weights(state):
    """Without the numbers of batches that norms have counted."""
    return {name: entry for name, entry in state.items() if entry.is_floating_point()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(entry, other[name]) for name, entry in one.items())


@pytest.mark.parametrize(
    ("moments", "optimizer"),
    [
        ("restarted", {}),
        ("kept", {}),
        ("kept", {"momentum": 0.9}),
        ("kept", {"momentum": 0.9, "nesterov": True}),
        ("kept", {"optimizer": "adam", "lr": 0.01}),
    ],
)
def test_one_client_is_trained_as_without_rounds_bit_for_bit(moments, optimizer):
    spec = federation(1, moments=moments)
    alone = client(range(60), federation=spec, **optimizer)
    *_, last = run([alone], spec)
    plain = train_member(alone.task)
    assert same(last.trained[0].state, plain.state)
    assert same(last.averaged[0], plain.state)
    assert last.trained[0].curve == plain.curve


def test_moments_that_restart_are_those_of_standard_federated_averaging():
    """Oracle: a plain training per round, from the weights of the last and from moments of zero."""
    spec = federation(1)
    alone = client(range(60), federation=spec, momentum=0.9)
    rounds = run([alone], spec)
    before = None
    for number in (1, 2, 3):
        resume = before and replace(before, moments={})
        before = train_member(replace(alone.task, epochs=2 * number, resume=resume))
        assert same(rounds[number - 1].trained[0].state, before.state)
    assert not same(before.state, train_member(alone.task).state)


def test_the_average_of_equal_data_and_noise_is_one_member():
    spec = federation(3)
    model = network(0, norm=True)
    alike = [client(range(60), model=model, federation=spec, momentum=0.9) for _ in range(3)]
    one = federation(1)
    for together, alone in zip(run(alike, spec), run(alike[:1], one), strict=True):
        for averaged in together.averaged:
            assert same(averaged, alone.averaged[0])
        assert same(together.pooled, alone.trained[0].state)


def test_clients_count_by_their_examples():
    """By hand: 60, 40 and 20 of 120 examples are ½, ⅓ and ⅙."""
    spec = federation(3, rounds=1)
    (found,) = run(thirds(spec), spec)
    assert shares([60, 40, 20]) == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    for name, entry in found.pooled.items():
        if entry.is_floating_point():
            a, b, c = (progress.state[name].double() for progress in found.trained)
            torch.testing.assert_close(entry.double(), a / 2 + b / 3 + c / 6, atol=1e-7, rtol=1e-6)
            assert not torch.equal(entry, found.trained[0].state[name])
    assert all(same(weights(averaged), weights(found.pooled)) for averaged in found.averaged)


def test_without_an_average_clients_are_trained_apart():
    spec = federation(3, average="none", moments="kept")
    clients = thirds(spec, momentum=0.9)
    *_, last = run(clients, spec)
    for one, progress in zip(clients, last.trained, strict=True):
        assert same(progress.state, train_member(one.task).state)
    assert not same(last.pooled, last.averaged[0])


def test_a_permutation_of_the_clients_changes_nothing_but_their_names():
    spec = federation(3, norm="averaged")
    clients = thirds(spec)
    *_, last = run(clients, spec)
    *_, permuted = run([clients[at] for at in (2, 0, 1)], spec)
    for name, entry in weights(last.pooled).items():
        torch.testing.assert_close(entry, permuted.pooled[name], atol=1e-6, rtol=1e-5)
    for at, own in enumerate((2, 0, 1)):
        for name, entry in last.trained[own].state.items():
            torch.testing.assert_close(entry, permuted.trained[at].state[name], atol=1e-6, rtol=1e-5)


def test_the_average_does_not_depend_on_the_order_of_the_states():
    states, sizes = [state(network(seed)) for seed in range(5)], shares([3, 1, 4, 1, 5])
    everything = frozenset(states[0])
    pooled, _ = average(states, sizes, everything)
    backwards, _ = average(states[::-1], sizes[::-1], everything)
    assert same(pooled, backwards)


def test_only_the_layers_that_are_named_are_averaged():
    spec = federation(3, average=["1", "4"])
    *_, last = run(thirds(spec), spec)
    for progress, averaged in zip(last.trained, last.averaged, strict=True):
        for name, entry in averaged.items():
            expected = last.pooled if name.partition(".")[0] in {"1", "4"} else progress.state
            assert torch.equal(entry, expected[name]), name


def test_norms_that_are_local_stay_at_their_client():
    spec = federation(3, norm="local")
    *_, last = run(thirds(spec), spec)
    for progress, averaged in zip(last.trained, last.averaged, strict=True):
        for name, entry in averaged.items():
            expected = progress.state if name.startswith("2.") else last.pooled
            assert torch.equal(entry, expected[name]), name
    of_norms = [averaged["2.weight"] for averaged in last.averaged]
    assert not torch.equal(of_norms[0], of_norms[1])


def test_statistics_are_estimated_again_on_what_a_model_is_for():
    spec = federation(3, norm="recalibrated", rounds=1)
    clients = thirds(spec)
    (found,) = run(clients, spec)
    plain, _ = average([p.state for p in found.trained], shares([60, 40, 20]), frozenset())
    own = Network(network(5, norm=True))
    for one, averaged in zip(clients, found.averaged, strict=True):
        assert same(averaged, recalibrated(own, [plain], one.own)[0])
    assert same(found.pooled, recalibrated(own, [plain], Part(whole=WHOLE, indices=np.arange(120)))[0])
    assert not torch.equal(found.pooled["2.running_mean"], plain["2.running_mean"])


def test_a_federation_that_goes_on_ends_as_one_that_did_not_stop():
    spec = federation(3, average=["1"], moments="kept", norm="local")
    clients = thirds(spec, momentum=0.9)
    first, *others = run(clients, spec)
    again = run(clients, spec, after=first)
    assert [found.number for found in again] == [2, 3]
    for one, other in zip(others, again, strict=True):
        assert all(same(a, b) for a, b in zip(one.averaged, other.averaged, strict=True))


def test_a_client_that_diverges_ends_the_federation_unaveraged():
    spec = federation(3)
    clients = thirds(spec)
    broken = replace(
        clients[1], task=replace(clients[1].task, spec=clients[1].task.spec.model_copy(update={"lr": 1e9}))
    )
    found = run([clients[0], broken, clients[2]], spec)
    assert "client 2: the training loss became" in found[-1].diverged
    assert "client 1" not in found[-1].diverged
    assert found[-1].averaged == ()
    assert found[-1].pooled is None
    assert len(found) < 3


def test_a_name_that_fits_no_layer_is_refused_with_those_there_are():
    own = Network(network(0, norm=True))
    with pytest.raises(ValueError, match=r"'conv\*' fits no layer; the layers are 1, 2, 4"):
        averaged_entries(own, federation(2, average=["1", "conv*"]))


@pytest.mark.parametrize("patterns", [["1"], ["?"], ["[12]", "4"], ["[!1]*"], ["*"]])
def test_names_mean_the_layers_that_they_mean_where_layers_are_moved(patterns):
    own = Network(network(0, norm=True))
    layers = layers_of(own.module, WHOLE.inputs[:2])
    group = layer_sets(layers, LayersSpec(families=(), groups={"named": patterns}))[-1]
    entries = {name for at in group.layers for name in layers[at].entries}
    assert averaged_entries(own, federation(2, average=patterns)) == entries


def test_buffers_go_with_their_layer():
    own = Network(network(0, norm=True))
    named = averaged_entries(own, federation(2, average=["2"]))
    assert named == {name for name in own.module.state_dict() if name.startswith("2.")}
    assert averaged_entries(own, federation(2)) == set(own.module.state_dict())
    assert averaged_entries(own, federation(2, average="none")) == frozenset()


def test_a_weight_with_two_names_is_averaged_under_both():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert averaged_entries(Network(model), federation(2, average=["1"])) == {"0.weight", "1.weight", "1.bias"}

"""A user's networks are checked before a sweep starts, so that problems are reported first.

Commands that only look, such as ``status`` and ``report``, also read a space; they run none of the code it names.
"""

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from lmc_tune.errors import UserError
from lmc_tune.experiment import SAME_WITHOUT_BATCH_NORM, Condition, FactorySpec, GroupSpec, MeasureSpec, statistics_of
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.reading import SpaceError
from lmc_tune.experiment.sources import Code, changed

if TYPE_CHECKING:  # without a factory torch is not imported, which would take seconds
    from torch import nn

    from lmc_tune.data.examples import Examples
    from lmc_tune.measurement.alignment.specification import Specification


def check_factories(pairs: Iterable[GroupSpec], measure: MeasureSpec, folders: Sequence[str] = ()) -> None:
    """Call every factory that the pairs name, with its arguments, and check the network.

    Args:
        pairs: all of a space.
        measure: what is asked of them.
        folders: where factories are looked for before ``sys.path``.

    Raises:
        SpaceError: names each factory that cannot be imported or called, or whose network is no ``torch.nn.Module``,
            does not meet the requirements of docs/guide.md, or cannot be stacked though the space asks for it; or names
            the conditions that would change nothing, because no network has BatchNorm, or units that can be permuted.
    """
    pairs = list(pairs)
    wanted = {
        (
            pair.model.model_dump_json(),
            facts_of(pair.dataset),
            pair.train.engine,
            pair.train.precision,
            pair.train.batch_size == 1,
        ): pair
        for pair in pairs
        if isinstance(pair.model, FactorySpec)
    }
    if not wanted:
        return
    from lmc_tune.measurement.network import Network  # noqa: PLC0415
    from lmc_tune.models.foreign import kept_settings  # noqa: PLC0415

    problems: dict[str, None] = {}  # in order, and each once: a factory may be asked for several data sets
    ours = [pair.model for pair in pairs if not isinstance(pair.model, FactorySpec)]
    normed, alignable = (
        any(getattr(model, may) for model in ours) for may in ("may_have_batch_norm", "may_be_aligned")
    )
    hindrances: list[str] = []
    for pair in wanted.values():
        try:
            with redirect_stdout(sys.stderr), kept_settings():  # stdout is for the answer
                model = _tried(pair, measure, folders)
                specification = _permuted(model, pair) if measure.alignment else None
        except UserError as error:
            problems[str(error)] = None
        else:
            normed |= bool(Network(model).norms)
            if specification:
                alignable |= specification.units > 0
                hindrances += specification.hindrances or ["there is none"]
    if not problems and measure.alignment and not alignable:
        problems[
            f"measure.alignment: would change nothing: no hidden unit of a network can be permuted ({hindrances[0]}); "
            f"leave it out"
        ] = None
    if (
        not problems
        and not normed
        and (useless := [name for name in measure.conditions or () if name in SAME_WITHOUT_BATCH_NORM])
    ):
        problems[
            f"measure.conditions: {' and '.join(useless)} would change nothing: no network of the space has BatchNorm; "
            f"leave {'them' if len(useless) > 1 else 'it'} out"
        ] = None
    if problems:
        raise SpaceError(list(problems))


def said_of_changed_code(pairs: Iterable[GroupSpec], finished: Iterable[str]) -> str:
    """How many finished pairs were pairs of this space before its code changed, and what changed; empty if none.

    finished: contents of pairs that are not in the space.
    """
    codes = dict(_without_code(pair.text) for pair in pairs if isinstance(pair.model, FactorySpec))
    if not codes:
        return ""
    ours = [(codes[rest], code) for rest, code in map(_without_code, finished) if rest in codes]
    files = sorted({name for now, code in ours for name in changed(now, code)})
    if not files:
        return ""
    return (
        f"; {len(ours)} of them were made before {' and '.join(files)} changed, and count as other pairs: a "
        f"network's code is part of its pairs"
    )


def _without_code(content: str) -> tuple[str, Code]:
    """A pair's content without its network's code, and that code."""
    fields = json.loads(content)
    code: Code = fields["model"].pop("code", {})
    return json.dumps(fields, sort_keys=True), code


@contextmanager
def _named(pair: GroupSpec) -> Iterator[None]:
    """Say which network has a problem."""
    try:
        yield
    except UserError as error:
        raise UserError(f"model.factory: the network of {pair.model.label} {error}") from error


def _tried(pair: GroupSpec, measure: MeasureSpec, folders: Sequence[str]) -> "nn.Module":
    """A network of the pair, after a few images went through everything that a sweep does with a network."""
    import torch  # noqa: PLC0415

    from lmc_tune.models import contract  # noqa: PLC0415
    from lmc_tune.models.registry import build_model  # noqa: PLC0415
    from lmc_tune.training.stacked import check_stackable  # noqa: PLC0415

    facts = facts_of(pair.dataset)
    model, other = (build_model(pair.model, facts.shape, facts.n_classes, seed=0, folders=folders) for _ in range(2))
    with _named(pair), torch.random.fork_rng(devices=[]):
        contract.check_state(model, facts.shape)
        contract.check_apart(model, other)
        contract.check_same_start(model, other)
        if pair.train.engine == "stacked":
            check_stackable(model)
        contract.check_fits(model, facts.shape, facts.n_classes, min(2, pair.train.batch_size))
        _train_a_step(model, pair)
        contract.check_restored(model, other, contract.some_inputs(2, facts.shape, facts.n_classes))
        _measure(model, pair, measure.of(pair.model).conditions or ())
    return model


def _train_a_step(model: "nn.Module", pair: GroupSpec) -> None:
    import torch  # noqa: PLC0415

    from lmc_tune.models.foreign import said  # noqa: PLC0415
    from lmc_tune.models.state import state_of  # noqa: PLC0415
    from lmc_tune.training.engines import engine_for, train  # noqa: PLC0415
    from lmc_tune.training.task import Task  # noqa: PLC0415

    examples, batch_size = _examples(pair), min(2, pair.train.batch_size)
    one_step = {"steps": 1, "epochs": None, "batch_size": batch_size, "spawn_epoch": 0, "target_loss": None}
    task = Task(
        model=model,
        start=state_of(model),
        whole=examples,
        positions=torch.arange(batch_size),
        test=examples,
        spec=pair.train.model_copy(update=one_step),
        noise_seed=0,
    )
    try:
        (trained,) = train([task], engine_for(next(iter(pair.members.values())), torch.device("cpu")))
        model.load_state_dict(trained.state)
    except Exception as error:
        raise UserError(f"cannot be trained: {said(error)}") from error


def _measure(model: "nn.Module", pair: GroupSpec, conditions: Collection[Condition]) -> None:
    from lmc_tune.measurement.conditions import prepare  # noqa: PLC0415
    from lmc_tune.measurement.layerwise.layers import layers_of  # noqa: PLC0415
    from lmc_tune.measurement.lines import Segment  # noqa: PLC0415
    from lmc_tune.measurement.network import Network  # noqa: PLC0415
    from lmc_tune.measurement.representation import layer_grams  # noqa: PLC0415
    from lmc_tune.measurement.scan import score_states  # noqa: PLC0415
    from lmc_tune.models.foreign import said  # noqa: PLC0415
    from lmc_tune.models.state import state_of  # noqa: PLC0415

    examples, state, network = _examples(pair), state_of(model), Network(model)
    try:
        for condition in conditions:
            if condition not in SAME_WITHOUT_BATCH_NORM or network.norms:
                networks = prepare(statistics_of(condition), network, Segment(state, state), examples, [0.5])
                score_states(networks.network, networks.states, examples)
        layer_grams(network, state, examples, [layer.name for layer in layers_of(model, examples.inputs)])
    except Exception as error:
        raise UserError(f"cannot be measured: {said(error)}") from error


def _permuted(model: "nn.Module", pair: GroupSpec) -> "Specification":
    """Which units of a network may be permuted, after some were, at random."""
    from lmc_tune.measurement.alignment.proof import check_unchanged  # noqa: PLC0415
    from lmc_tune.measurement.alignment.specification import random_permutations  # noqa: PLC0415
    from lmc_tune.measurement.alignment.trace import specification_of  # noqa: PLC0415
    from lmc_tune.models.foreign import said  # noqa: PLC0415
    from lmc_tune.models.state import state_of  # noqa: PLC0415

    inputs = _examples(pair).inputs
    with _named(pair):
        try:
            specification = specification_of(model, inputs)
            if specification.free:
                check_unchanged(model, specification, state_of(model), random_permutations(specification, 0), inputs)
        except Exception as error:
            raise UserError(f"cannot be aligned: {said(error)}") from error
    return specification


def _examples(pair: GroupSpec) -> "Examples":
    from lmc_tune.data.examples import Examples  # noqa: PLC0415
    from lmc_tune.models.contract import no_labels, some_inputs  # noqa: PLC0415

    facts = facts_of(pair.dataset)
    return Examples(inputs=some_inputs(4, facts.shape, facts.n_classes), labels=no_labels(4, facts))

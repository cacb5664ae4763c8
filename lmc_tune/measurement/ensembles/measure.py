"""Everything that is measured of an ensemble."""

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
from torch import nn

from lmc_tune.core.calibration import Calibration, calibration, combine, gain
from lmc_tune.core.ensembles import sizes
from lmc_tune.core.seeding import child_seed
from lmc_tune.experiment import EnsembleMeasureSpec, MeasureSpec, Statistics
from lmc_tune.measurement.conditions import least_stale
from lmc_tune.measurement.ensembles.averages import Averages, connectivity_columns, group_barriers
from lmc_tune.measurement.ensembles.predictions import Predictions, diversity, predict, with_dropout
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.path import ADDED_POSITIONS
from lmc_tune.measurement.representation import compare_grams, layer_grams
from lmc_tune.tables.columns import NestedName, Row


def measure_ensemble(members: Members, asked: MeasureSpec, passes: int = 1) -> Found:
    """Columns of an ensemble's row, and its rows of ``barriers``, ``ensembles``, ``ensemble_members`` and ``averages``.

    Members and averages are under the condition whose statistics are least stale: else they would differ in more than
    their weights.

    Args:
        members: their states on the CPU; held-out examples, if there are any, as ``validation``: on these temperatures
            are fitted, and members of the greedy soup chosen.
        asked: splits, conditions, the grid of paths, and what is asked of ensembles.
        passes: of a single member with dropout left on, in the place of several members.
    """
    how = asked.ensemble or EnsembleMeasureSpec()
    averages = Averages(
        network=members.network,
        states=list(members.states.values()),
        data=members.data,
        statistics=members.statistics,
        seed=members.seed,
    )
    condition = least_stale(asked, members.network)
    test = predict(_models(averages, condition, passes), members.data["test"])
    held_out = members.data.get("validation")
    validation = predict(_models(averages, condition, passes), held_out) if held_out is not None else None
    columns = {**_together(test, validation, how), **diversity(test)}
    tables: dict[NestedName, list[Row]] = {
        "ensemble_members": _member_rows(test, validation),
        "ensembles": [vars(size) for size in sizes(test.logits, test.labels, how.rule, most=how.subsets)],
    }
    if len(averages.states) > 1:
        found = _averaged(averages, asked, condition, how, test)
        columns |= {**found.columns, "cka": _cka(averages)}
        tables |= found.tables
    return Found(columns=columns, tables=tables)


def ensemble_work(members: int, trained: int, sizes: Sizes, asked: MeasureSpec) -> Work:
    """What measuring an ensemble does, up to the similarity of layers.

    Args:
        members: whose predictions are averaged.
        trained: networks that were trained; one with dropout stands for all members.
        sizes: of the data.
        asked: the measurements.
    """
    how, held_out = asked.ensemble or EnsembleMeasureSpec(), sizes.splits["validation"]
    predicted = Work(scored_apart=members * (sizes.test + held_out) + trained * sizes.part)
    if trained == 1:
        return predicted
    conditions = asked.conditions or ()
    estimates = "recalibrated" in conditions
    paths = min(how.pairs, members * (members - 1) // 2) * (asked.lambdas + ADDED_POSITIONS)
    on_paths = paths * sum(sizes.splits[split] for split in asked.splits)
    drawn = how.draws + members
    soup = 2 * members - 1 if held_out else 0
    prepared = paths + drawn + members * (2 if held_out else 1) + soup + 1
    return predicted + Work(
        scored_on_path=on_paths,
        scored_apart=len(conditions) * drawn * sizes.test
        + (len(conditions) - 1) * on_paths
        + soup * held_out
        + 2 * sizes.test,
        estimated=prepared * sizes.both if estimates else 0,
    )


def _models(averages: Averages, condition: Statistics, passes: int) -> Iterator[nn.Module]:
    """The networks whose predictions are averaged, one after the other in the same memory."""
    network = averages.network
    if len(averages.states) > 1:
        return (network.loaded(averages.prepared(state, condition)) for state in averages.states)
    model = network.loaded(averages.prepared(averages.states[0], condition))
    return with_dropout(model, [child_seed(averages.seed, "dropout", number) for number in range(passes)])


def _together(test: Predictions, validation: Predictions | None, how: EnsembleMeasureSpec) -> Row:
    """The ensemble, the mean member, and what temperature scaling makes of the ensemble."""
    logits = combine(test.logits, how.rule)
    known = calibration(logits, test.labels)
    columns = {
        "member_accuracy": float(np.mean([one.accuracy for one in test.qualities])),
        "member_nll": float(np.mean([one.nll for one in test.qualities])),
        **_compared("ensemble", known, test),
    }
    if validation is None:
        return columns
    fitted = Predictions(logits=[combine(validation.logits, how.rule)], labels=validation.labels).temperatures[0]
    scaled = calibration(logits / fitted, test.labels)
    return columns | {"temperature": fitted, "scaled_nll": scaled.nll, "scaled_ece": scaled.ece}


def _compared(name: str, known: Calibration, test: Predictions) -> Row:
    """Qualities of what is made of the members, and their gains over the mean member."""
    gains = gain(known, test.qualities)
    return {f"{name}_{quality}": value for quality, value in asdict(known).items()} | {
        f"{name}_gain_{quality}": value for quality, value in gains.items()
    }


def _member_rows(test: Predictions, validation: Predictions | None) -> list[Row]:
    rows: list[Row] = [{"number": number, **asdict(one)} for number, one in enumerate(test.qualities, 1)]
    if validation is None:
        return rows
    for row, logits, fitted in zip(rows, test.logits, validation.temperatures, strict=True):
        scaled = calibration(logits / fitted, test.labels)
        row |= {"temperature": fitted, "scaled_nll": scaled.nll, "scaled_ece": scaled.ece}
    return rows


def _averaged(
    averages: Averages, asked: MeasureSpec, condition: Statistics, how: EnsembleMeasureSpec, test: Predictions
) -> Found:
    """What averages of the members' weights come to, under every condition; columns are under the least stale one."""
    columns: Row = {"measured_pairs": len(averages.chosen(how.pairs))}
    rows, barriers = list[Row](), list[Row]()
    for one in asked.conditions or ():
        draws = averages.draws(one, how.draws)
        points, paths = averages.pairs(one, asked, how.pairs)
        rows += [*draws, *points]
        if paths:
            barriers.append(group_barriers(one, paths))
        if one == condition:
            columns |= connectivity_columns(draws)
            if "validation" in averages.data:
                soup, kept = averages.soup(one)
                rows.append(soup)
                columns |= {"greedy_accuracy": soup["correct"] / soup["n"], "greedy_members": len(kept)}
    weights = [1 / len(averages.states)] * len(averages.states)
    model = averages.network.loaded(averages.prepared(averages.at(weights), condition))
    uniform = predict([model], averages.data["test"])
    return Found(
        columns=columns | _compared("average", uniform.qualities[0], test),
        tables={"averages": rows, "barriers": barriers},
    )


def _cka(averages: Averages) -> float:
    """Similarity of layers, mean over layers that have outputs and over pairs of members."""
    network, examples = averages.network, averages.data["test"]
    names = [layer.name for layer in layers_of(network.module, next(examples.chunks(2)).inputs)]
    grams = [layer_grams(network, averages.there(state), examples, names) for state in averages.states]
    alike = [compare_grams(grams[a], grams[b]) for a, b in averages.chosen(len(grams) ** 2)]
    return float(np.nanmean([list(found.values()) for found in alike]))

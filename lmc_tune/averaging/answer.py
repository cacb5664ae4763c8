"""From findings to an answer: average, recalibrate, align, neither; and the reasons, in words."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lmc_tune.analysis.wording import layer_words
from lmc_tune.averaging.findings import LayerFindings, OfCondition, PairFindings
from lmc_tune.averaging.judging import Judged
from lmc_tune.averaging.layer_text import ranges
from lmc_tune.averaging.paths import Condition, Method
from lmc_tune.averaging.surroundings_text import direction_sentences, plane_sentence
from lmc_tune.averaging.wording import bounds, decimals, height, quantity_name
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import Verdict

Kind = Literal["average", "recalibrate", "align", "neither", "undecided"]
# Exit codes of the command, for scripts and agents.
EXIT_CODES: dict[Kind, int] = {"average": 0, "recalibrate": 3, "align": 3, "neither": 4, "undecided": 5}

_NAIVE = Condition()
# Of the distance before aligning: what rounding may leave of a permuted copy.
_SAME = 1e-5
# An interval that has to shrink by more than this needs a hundred times as many examples.
_FARTHEST = 10


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to do with two checkpoints.

    verdict: on the path that was chosen. condition: under which to average; None where not to. in_short: a sentence.
    reasons: why, the most telling first.
    """

    kind: Kind
    verdict: Verdict
    condition: Condition | None
    in_short: str
    reasons: tuple[str, ...]

    @property
    def says_yes(self) -> bool:
        """Whether there is an average that is worth having."""
        return self.kind in {"average", "recalibrate", "align"}

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.kind]


def answer(found: PairFindings) -> Answer:
    """The first condition whose average is worth having: connected, and not much worse than the better member.

    What can be averaged of single layers, and what lies around the networks, is among the reasons; it changes nothing
    else.
    """
    said, judging = _answer(found), found.judging
    more = [] if found.layers is None else [_of_layers(found, found.layers)]
    if found.directions is not None:
        more += direction_sentences(found.directions, judging, quantity_name(judging, found.metric), found.unit)
    if found.planes is not None:
        more.append(plane_sentence(found.planes, judging, quantity_name(judging, found.metric)))
    return replace(said, reasons=(*said.reasons, *more))


def _answer(found: PairFindings) -> Answer:
    if found.identical:
        naive = found.paths[0]
        return Answer(
            kind="average",
            verdict="connected",
            condition=naive.condition,
            in_short="Both files hold the same weights: there is nothing to average.",
            reasons=("identical files: every entry is the same", *_of_path(found, naive)),
        )
    verdicts = [path.judged["test"].verdict for path in found.paths]
    connected = [path for path, verdict in zip(found.paths, verdicts, strict=True) if verdict == "connected"]
    good = next((path for path in connected if not path.to_better.low > found.judging.threshold), None)
    if good is not None:
        return _connected(found, good)
    if connected:
        return _worse(found, connected[0])
    if set(verdicts) == {"undertrained"}:
        return _undertrained(found)
    if "undecided" in verdicts:
        return _undecided(found)
    return _neither(found)


def _undertrained(found: PairFindings) -> Answer:
    untrained = [member.name for member in found.members if member.learned is False] or ["they"]
    in_short = "No: neither does better than naming the most frequent class, and their path means nothing."
    if len(untrained) == 1 and untrained != ["they"]:
        kept = found.better.name
        in_short = f"No: {untrained[0]} does no better than naming the most frequent class; keep {kept}."
    return Answer(
        kind="neither",
        verdict="undertrained",
        condition=None,
        in_short=in_short,
        reasons=(
            f"{' and '.join(untrained)}: no better on the test examples than always naming the most frequent class",
            "check that inputs are scaled as in training, and that labels are those of the network",
        ),
    )


def _undecided(found: PairFindings) -> Answer:
    undecided = [path for path in found.paths if path.judged["test"].verdict == "undecided"]
    path = min(undecided, key=lambda one: one.judged["test"].high)
    return Answer(
        kind="undecided",
        verdict="undecided",
        condition=path.condition,
        in_short=f"Undecided on {path.judged['test'].n} test examples: the barrier may lie on either side of the "
        f"threshold.",
        reasons=(
            f"{_barrier(found, path)}, against a threshold of {_height(found, found.judging.threshold)}",
            more_examples(path.judged["test"], found.judging.threshold),
            *_removed(found),
            *_of_path(found, path),
        ),
    )


def more_examples(judged: Judged, threshold: float) -> str:
    """How many test examples may decide, if the barrier is as high as it looks."""
    gap = abs(threshold - judged.barrier)
    reach = judged.high - judged.barrier if judged.barrier < threshold else judged.barrier - judged.low
    if not (gap > 0 and math.isfinite(reach)) or reach / gap > _FARTHEST:
        return "give many more test examples: the barrier looks as high as the threshold"
    return f"give more test examples: about {float(f'{1.2 * judged.n * (reach / gap) ** 2:.1g}'):.0f} may decide"


def _worse(found: PairFindings, path: OfCondition) -> Answer:
    """There is no barrier, and yet the average is not worth having."""
    judging, better = found.judging, found.better
    worse = next(member for member in found.members if member is not better)
    levels = [member.quality.means["test", judging.quantity] for member in (worse, better)]
    change = f"the average is {_points(found, path.to_better.mean)} worse than {better.name} alone"
    if levels[0] - levels[1] > judging.threshold:
        in_short = f"No: {worse.name} is worse everywhere, so there is nothing to average; keep {better.name}."
        why = f"{worse.name} has {_level(found, levels[0])}"
    else:
        in_short = f"No: {path.condition.label} networks are worse than {better.name} as it is; keep {better.name}."
        why = f"preparing networks as {path.condition.label} harms both of them: is it done on data like the test data?"
    return Answer(
        kind="neither",
        verdict="connected",
        condition=None,
        in_short=in_short,
        reasons=(f"no barrier, but {change}", why, *_of_path(found, path)),
    )


def _connected(found: PairFindings, path: OfCondition) -> Answer:
    condition = path.condition
    kind: Kind = "average" if condition == _NAIVE else "align" if condition.alignment else "recalibrate"
    level = _level(found, path.average.means["test", found.judging.quantity])
    in_short = f"{how_to(condition)}: the average has {level}."
    aligned = next((one for one in found.alignments if one.method == condition.alignment), None)
    if aligned is not None and aligned.distance <= _SAME * found.distance:
        in_short = "B is A with its hidden units in another order: there is nothing to average."
    return Answer(
        kind=kind,
        verdict="connected",
        condition=condition,
        in_short=in_short,
        reasons=(*_removed(found, path), _barrier(found, path), *_better_still(found, path), *_of_path(found, path)),
    )


def _better_still(found: PairFindings, chosen: OfCondition) -> list[str]:
    """Another condition whose average has a clearly lower value: by a quarter of the threshold, or more."""
    best = min(found.paths, key=lambda path: path.to_better.mean)
    if not chosen.to_better.mean - best.to_better.mean > found.judging.threshold / 4:
        return []
    level = _level(found, best.average.means["test", found.judging.quantity])
    return [f"better still, {best.condition.label}: the average then has {level}"]


def how_to(condition: Condition) -> str:
    """How to average under a condition, as an imperative."""
    after = {
        "naive": "",
        "endpoint": " with A's BatchNorm statistics",
        "recalibrated": ", and estimate BatchNorm's statistics again (recalibrate)",
        "repaired": ", and rescale its channels (REPAIR)",
    }[condition.statistics]
    if condition.alignment is None:
        return f"Average them{after}"
    return f"Align B to A by {condition.alignment}, then average them{after}"


def _neither(found: PairFindings) -> Answer:
    best = min(found.paths, key=lambda path: path.judged["test"].barrier)
    ensemble = found.ensemble_to_better
    if ensemble is not None and found.ensemble is not None and ensemble.high < 0:
        error = _level(found, found.ensemble.means["test", "error"])
        instead = f"let both predict: their ensemble has {error}"
    else:
        own = found.better.quality.means["test", found.judging.quantity]
        instead = f"keep {found.better.name}: {_level(found, own)}"
    return Answer(
        kind="neither",
        verdict="disconnected",
        condition=None,
        in_short=f"No: there is a barrier between them under every condition that was tried; {instead}.",
        reasons=(
            f"{_barrier(found, best)}, the lowest of {counted(len(found.paths), 'condition')}",
            *_removed(found),
            *_not_aligned(found),
            *_of_path(found, best),
        ),
    )


def _not_aligned(found: PairFindings) -> list[str]:
    tried = any(path.condition.alignment for path in found.paths) or any("permuted" in note for note in found.notes)
    return [] if tried else ["alignment was not tried: leave --conditions out, or add aligned to them"]


def _removed(found: PairFindings, chosen: OfCondition | None = None) -> list[str]:
    """How much of the barrier each kind of preparation removes, where there is one."""
    naive = found.paths[0]
    recalibrated = found.path(Condition(None, "recalibrated"))
    reasons = []
    if recalibrated is not None:
        reasons += _stale(found, naive, recalibrated, chosen)
    best = {method: _lowest(found, method) for method in get_args(Method)}
    for method, path in best.items():
        if path is None:
            continue
        start = naive if path.condition.statistics == "naive" else recalibrated or naive  # what the permutation adds
        if start.judged["test"].verdict in {"disconnected", "undecided"}:
            how = f" ({path.condition.statistics})" if path.condition.statistics != "naive" else ""
            reasons.append(f"a permutation matched by {method}{how} removes {_part(found, start, path)}")
    verdicts = {method: path.judged["test"].verdict for method, path in best.items() if path is not None}
    if verdicts == {"weights": "disconnected", "activations": "connected"}:
        reasons.append("matching by weights fails here, by activations it does not: use --align activations")
    return reasons


def _stale(found: PairFindings, naive: OfCondition, recalibrated: OfCondition, chosen: OfCondition | None) -> list[str]:
    """What estimating statistics again does."""
    before, after = naive.judged["test"], recalibrated.judged["test"]
    if before.verdict == "undertrained" and after.verdict != "undertrained":
        return ["the statistics are stale: as they are, the networks do no better than naming the most frequent class"]
    if before.verdict not in {"disconnected", "undecided"}:
        return []
    only = "only the statistics are stale: " if chosen is recalibrated else ""
    return [f"{only}recalibrating removes {_part(found, naive, recalibrated)}"]


def _lowest(found: PairFindings, method: Method) -> OfCondition | None:
    """The aligned path with the lowest barrier."""
    paths = [path for path in found.paths if path.condition.alignment == method]
    return min(paths, key=lambda path: path.judged["test"].barrier, default=None)


def _of_path(found: PairFindings, path: OfCondition) -> list[str]:
    """What else to know of a path: on training examples, and against the better member."""
    reasons = []
    train = path.judged.get("train")
    if train is not None and train.verdict == "disconnected" and path.judged["test"].verdict == "connected":
        reasons.append(
            f"on the training examples a barrier of {_height(found, train.barrier)} lies between them: they have "
            f"overfitted, and test examples alone do not show it"
        )
    if not found.identical and path.judged["test"].verdict == "connected":
        change = path.to_better
        if change.high < 0:
            reasons.append(f"the average is {_points(found, -change.mean)} better than {found.better.name} alone")
        elif change.low > 0:
            reasons.append(f"the average is {_points(found, change.mean)} worse than {found.better.name} alone")
    if frozen := next((one.frozen for one in found.alignments if one.frozen), ()):
        reasons.append(f"not all units can be permuted: {frozen[0]}")
    return reasons


def _of_layers(found: PairFindings, layers: LayerFindings) -> str:
    """The recipe, and what it costs, in a sentence."""
    recipe, names = layers.recipe, [layer_words(at + 1, layer.name) for at, layer in enumerate(layers.layers)]
    label = layers.condition.label
    if recipe.is_empty:
        which = "no layer that differs can be averaged, whichever member has the others"
        return f"{label}: {which}, without exceeding the threshold"
    what = "every layer"
    if recipe.kept is not None:
        noun = "layer" if len(recipe.averaged) == 1 else "layers"
        what = f"{noun} {ranges(recipe.averaged, names)} ({100 * recipe.share:.0f}% of the squared distance)"
        what += f" and keeping {recipe.kept.upper()}'s others"
    cost, n = recipe.to_mean, recipe.judged.n
    how = f"costs {_points(found, cost.mean)}" if cost.mean >= 0 else f"gains {_points(found, -cost.mean)}"
    return (
        f"{label}: averaging {what} {how} against the members' mean on the {n} examples that did not choose it "
        f"({recipe.judged.verdict})"
    )


def _part(found: PairFindings, before: OfCondition, after: OfCondition) -> str:
    """E.g. ``94% of the barrier of 49.92%``; 100% only if nothing is left."""
    whole, left = before.judged["test"].barrier, after.judged["test"].barrier
    of = f"of the barrier of {_height(found, whole)}"
    if not (math.isfinite(whole) and whole > 0):
        return f"an unknown part {of}"
    part = 100 * (whole - left) / whole
    if part <= 0:
        return f"nothing {of}"
    return f"{part if left <= 0 else min(part, 99.9):.3g}% {of}"


def _height(found: PairFindings, value: float) -> str:
    return f"{height(value, found.judging)} {'' if found.judging.quantity == 'error' else found.unit}".rstrip()


def _points(found: PairFindings, value: float) -> str:
    return f"{decimals(100 * value, 2)} points" if found.judging.quantity == "error" else _height(found, value)


def _level(found: PairFindings, value: float) -> str:
    kind = "an error of" if found.judging.quantity == "error" else "a loss of"
    return f"{kind} {_height(found, value)}"


def _barrier(found: PairFindings, path: OfCondition) -> str:
    judged = path.judged["test"]
    interval = bounds(judged.low, judged.high, found.judging)
    return f"{path.condition.label}: a barrier of {_height(found, judged.barrier)} ({interval})"

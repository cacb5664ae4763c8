"""From findings to an answer: average, recalibrate, align, neither; and the reasons, in words."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from lmc_tune.averaging.findings import OfCondition, PairFindings
from lmc_tune.averaging.paths import Condition, Method
from lmc_tune.averaging.wording import bounds, decimals, height
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import Verdict

Kind = Literal["average", "recalibrate", "align", "neither", "undecided"]
# Of the command, for scripts and agents.
EXIT_CODES: dict[Kind, int] = {"average": 0, "recalibrate": 3, "align": 3, "neither": 4, "undecided": 5}

_NAIVE = Condition()


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
    """The first condition under which the members are connected, in the order in which they were measured."""
    naive = found.paths[0]
    if found.distance == 0:
        return Answer(
            kind="average",
            verdict="connected",
            condition=naive.condition,
            in_short="Both files hold the same weights: there is nothing to average.",
            reasons=("identical files: the distance of their weights is 0", *_of_path(found, naive)),
        )
    if any(member.learned is False for member in found.members):
        return _undertrained(found)
    connected = next((path for path in found.paths if path.judged["test"].verdict == "connected"), None)
    if connected is not None:
        return _connected(found, connected)
    undecided = [path for path in found.paths if path.judged["test"].verdict == "undecided"]
    if undecided:
        path = min(undecided, key=lambda one: one.judged["test"].high)
        judged = path.judged["test"]
        return Answer(
            kind="undecided",
            verdict="undecided",
            condition=path.condition,
            in_short=f"Undecided on {judged.n} test examples: the barrier may lie on either side of the threshold.",
            reasons=(
                f"{_barrier(found, path)}, against a threshold of {_height(found, found.judging.threshold)}",
                "give more test examples",
                *_removed(found),
                *_of_path(found, path),
            ),
        )
    return _neither(found)


def _undertrained(found: PairFindings) -> Answer:
    lazy = [member.name for member in found.members if member.learned is False]
    which = lazy[0] if len(lazy) == 1 else "both"
    return Answer(
        kind="neither",
        verdict="undertrained",
        condition=None,
        in_short=f"No: {which} cannot be told from naming the most frequent class, so a flat path means nothing.",
        reasons=(
            f"{' and '.join(lazy)}: no better on the test examples than always naming the most frequent class",
            "check that inputs are scaled as in training, and that labels are those of the network",
        ),
    )


def _connected(found: PairFindings, path: OfCondition) -> Answer:
    judging = found.judging
    if path.to_better.low > judging.threshold:
        worse = next(member for member in found.members if member is not found.better)
        change = _points(found, path.to_better.mean)
        return Answer(
            kind="neither",
            verdict="connected",
            condition=None,
            in_short=f"No: {worse.name} is worse everywhere, so there is nothing to average; keep {found.better.name}.",
            reasons=(
                f"no barrier, but the average is {change} worse than {found.better.name} alone",
                f"{worse.name} has {_level(found, worse.quality.means['test', judging.quantity])}",
                *_of_path(found, path),
            ),
        )
    kind: Kind = "average"
    how = "Average them"
    if path.condition.alignment is not None:
        kind, how = "align", f"Align B by {path.condition.alignment} first"
        how += {"naive": "", "recalibrated": ", then recalibrate", "repaired": ", then repair"}.get(
            path.condition.statistics, ""
        )
    elif path.condition.statistics != "naive":
        kind, how = "recalibrate", "Average them, and recalibrate BatchNorm's statistics"
    return Answer(
        kind=kind,
        verdict="connected",
        condition=path.condition,
        in_short=f"{how}: the average has {_level(found, path.average.means['test', judging.quantity])}.",
        reasons=(*_removed(found, path), _barrier(found, path), *_of_path(found, path)),
    )


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
        in_short=f"No: a barrier stands between them under every condition that was tried; {instead}.",
        reasons=(
            f"{_barrier(found, best)}, the lowest of {counted(len(found.paths), 'condition')}",
            *_removed(found),
            *_of_path(found, best),
        ),
    )


def _removed(found: PairFindings, chosen: OfCondition | None = None) -> list[str]:
    """How much of the naive barrier each kind of preparation removes, where there is one."""
    naive = found.paths[0].judged["test"].barrier
    if not naive > 0 or found.paths[0].judged["test"].verdict == "connected":
        return []
    reasons = []
    recalibrated = found.path(Condition(None, "recalibrated"))
    if recalibrated is not None:
        part = _part(naive, recalibrated.judged["test"].barrier)
        if chosen is recalibrated:
            reasons.append(
                f"only the statistics are stale: recalibrating removes {part} of the barrier of {_height(found, naive)}"
            )
        else:
            reasons.append(f"recalibrating removes {part} of the barrier of {_height(found, naive)}")
    start = recalibrated if recalibrated is not None else found.paths[0]
    reference = start.judged["test"].barrier
    best: dict[Method, OfCondition] = {}
    for path in found.paths:
        method = path.condition.alignment
        if method and (method not in best or path.judged["test"].barrier < best[method].judged["test"].barrier):
            best[method] = path
    for method, path in best.items():
        left = path.judged["test"].barrier
        how = f" ({path.condition.statistics})" if path.condition.statistics != "naive" else ""
        reasons.append(
            f"a permutation matched by {method}{how} removes {_part(reference, left)} of the barrier of "
            f"{_height(found, reference)}"
        )
    if len(best) == 2:
        weights, activations = (best[method].judged["test"] for method in get_args(Method))
        if activations.high < weights.low:
            reasons.append("matching by weights fails here, by activations it does not: use --align activations")
    return reasons


def _of_path(found: PairFindings, path: OfCondition) -> list[str]:
    """What else to know of a path: on training examples, and against the better member."""
    reasons = []
    train = path.judged.get("train")
    if train is not None and train.verdict == "disconnected" and path.judged["test"].verdict != "disconnected":
        reasons.append(
            f"on the training examples a barrier of {_height(found, train.barrier)} stands between them: they have "
            f"overfitted, and test examples alone do not show it"
        )
    if found.distance and path.judged["test"].verdict == "connected":
        change = path.to_better
        if change.high < 0:
            reasons.append(f"the average is {_points(found, -change.mean)} better than {found.better.name} alone")
        elif change.low > 0:
            reasons.append(f"the average is {_points(found, change.mean)} worse than {found.better.name} alone")
    if frozen := next((one.frozen for one in found.alignments if one.frozen), ()):
        reasons.append(f"not all units can be permuted: {frozen[0]}")
    return reasons


def _part(before: float, after: float) -> str:
    if not math.isfinite(before):
        return "an unknown part"
    part = (before - after) / before
    return f"{100 * part:.0f}%" if part > 0 else "nothing"


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

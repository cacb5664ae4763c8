"""From what was found of several checkpoints to an answer."""

from collections import Counter
from dataclasses import replace

from lmc_tune.analysis.wording import listed
from lmc_tune.averaging.answer import Answer, Kind, how_to, more_examples
from lmc_tune.averaging.basins import Indices
from lmc_tune.averaging.many import Basins, ManyFindings
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.surroundings_text import plane_sentence
from lmc_tune.averaging.wording import bounds, decimals, height, quantity_name
from lmc_tune.core.counted import counted
from lmc_tune.core.statistics import Verdict


def answer_many(found: ManyFindings) -> Answer:
    """The first condition under which all members lie in one basin; else which of them do.

    What lies on a plane is among the reasons; it changes nothing else.
    """
    said = _answer(found)
    if found.planes is None:
        return said
    on_plane = plane_sentence(found.planes, found.judging, quantity_name(found.judging, found.metric))
    return replace(said, reasons=(*said.reasons, on_plane))


def _answer(found: ManyFindings) -> Answer:
    lazy = tuple(
        f"{name}: no better on the test examples than always naming the most frequent class"
        for name, learned in zip(found.names, found.learned, strict=True)
        if learned is False
    )
    if len(lazy) > len(found.names) - 2:
        return Answer(
            kind="neither",
            verdict="undertrained",
            condition=None,
            in_short="No: fewer than two of them are better than naming the most frequent class.",
            reasons=(*lazy, "check that inputs are scaled as in training, and that labels are those of the networks"),
        )
    best = found.chosen
    if len(best.groups) == 1:
        return _one_basin(found, best)
    verdicts = Counter(judged.verdict for judged in best.judged.values())
    reasons = (
        f"{best.condition.label}: {_pairs(verdicts)}",
        *(f"{_members(found, group)} lie in one basin" for group in best.groups if len(group) > 1),
        *(f"{found.names[group[0]]} is connected with none of the others" for group in _loners(found, best)),
        *_not_transitive(found, best),
        *_window(found, best),
        *lazy,
        *_soups(found),
    )
    if not verdicts["disconnected"] and verdicts["undecided"]:
        return Answer(
            kind="undecided",
            verdict="undecided",
            condition=best.condition,
            in_short=f"Undecided: of {counted(len(best.judged), 'pair')}, {verdicts['undecided']} may have a barrier.",
            reasons=(*reasons, _more_examples(found, best)),
        )
    return Answer(
        kind="neither", verdict="disconnected", condition=None, in_short=_in_short(found, best), reasons=reasons
    )


def _loners(found: ManyFindings, basins: Basins) -> list[Indices]:
    """Members that have learned, and that no connected pair joins with another."""
    return [chain for chain in basins.chains if len(chain) == 1 and found.learned[chain[0]] is not False]


def _one_basin(found: ManyFindings, basins: Basins) -> Answer:
    condition = basins.condition
    kind: Kind = "align" if condition.alignment else "average" if condition == Condition() else "recalibrate"
    if kind != "align" and found.uniform.to_best.low > found.judging.threshold:
        return Answer(
            kind="neither",
            verdict="connected",
            condition=None,
            in_short=f"No: {found.names[found.best]} alone is better than the average of all; keep it.",
            reasons=_soups(found),
        )
    reasons = (f"every pair of {len(found.names)} is connected: {condition.label}", *_soups(found))
    how = "Every pair can be averaged once it is aligned; a common alignment of all was not tried"
    return Answer(
        kind=kind,
        verdict="connected",
        condition=condition,
        in_short=f"{how}." if condition.alignment else f"{how_to(condition)}: all together have {_worth(found)}.",
        reasons=reasons,
    )


def _in_short(found: ManyFindings, basins: Basins) -> str:
    if found.trajectory and len(basins.window) > 1:
        first, last = found.names[basins.window[0]], found.names[basins.window[-1]]
        return (
            f"Not all of them: the widest window that may be averaged runs from {first} to {last}, "
            f"{counted(len(basins.window), 'checkpoint')}."
        )
    if all(len(group) == 1 for group in basins.groups):
        return "No: no two of them are known to lie in one basin."
    if len(basins.groups[0]) == sum(learned is not False for learned in found.learned):
        return f"Not all of them: {_members(found, basins.groups[0])} lie in one basin, the others have not learned."
    several = [_members(found, group) for group in basins.groups if len(group) > 1]
    if len(several) > 1:
        return f"Not all of them: they lie in {len(several)} basins: {'; '.join(several)}."
    return f"Not all of them: {several[0]} lie in one basin, others do not."


def _members(found: ManyFindings, members: Indices) -> str:
    return listed([found.names[member] for member in members])


def _pairs(verdicts: Counter[Verdict]) -> str:
    """E.g. ``30 pairs connected, 36 disconnected``."""
    parts = [f"{n} {verdict}" for verdict, n in verdicts.most_common()]
    return f"of {verdicts.total()} pairs, {', '.join(parts)}"


def _not_transitive(found: ManyFindings, basins: Basins) -> list[str]:
    """Where a chain of connected pairs joins members that are not all connected."""
    return [
        f"connected pairs join {_members(found, chain)}, but not every pair of them is connected"
        for chain in basins.chains
        if len(chain) > 1 and not any(set(chain) <= set(group) for group in basins.groups)
    ]


def _window(found: ManyFindings, basins: Basins) -> list[str]:
    if not found.trajectory or len(basins.window) < 2:
        return []
    first, last = found.names[basins.window[0]], found.names[basins.window[-1]]
    n = counted(len(basins.window), "checkpoint")
    return [f"widest window: {first} to {last}, {n}; name only these to save their average"]


def _more_examples(found: ManyFindings, basins: Basins) -> str:
    """For the pair that needs fewest."""
    undecided = [judged for judged in basins.judged.values() if judged.verdict == "undecided"]
    nearest = max(undecided, key=lambda judged: abs(found.judging.threshold - judged.barrier))
    return more_examples(nearest, found.judging.threshold)


def _worth(found: ManyFindings) -> str:
    kind = "an error of" if found.judging.quantity == "error" else "a loss of"
    return f"{kind} {height(found.uniform.value, found.judging)}"


def _soups(found: ManyFindings) -> tuple[str, ...]:
    best = found.names[found.best]

    def worth(value: float) -> str:
        return f"{height(value, found.judging)} {'error' if found.judging.quantity == 'error' else found.metric}"

    change = found.uniform.to_best
    scale, unit = (100, " points") if found.judging.quantity == "error" else (1, "")
    low, high = sorted(decimals(scale * abs(bound), 2) for bound in (change.low, change.high))
    word = "worse" if change.mean > 0 else "better"
    if change.low < 0 < change.high:
        against = f"no different from {best} alone as far as these examples show"
    else:
        against = f"{decimals(scale * abs(change.mean), 2)}{unit} ({low} to {high}) {word} than {best} alone"
    return (
        f"uniform soup of all: {worth(found.uniform.value)}, {against}",
        f"greedy soup of {_members(found, found.greedy.members)}: {worth(found.greedy.value)}",
    )


def interval_words(found: ManyFindings, basins: Basins, at: tuple[int, int]) -> str:
    """The barrier of a pair with its bounds."""
    judged = basins.judged[at]
    return f"{height(judged.barrier, found.judging)} ({bounds(judged.low, judged.high, found.judging)})"

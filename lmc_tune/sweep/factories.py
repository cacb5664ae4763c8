"""Networks of the user's own are built once before a sweep starts, so that what is wrong with one is told first.

A space is also read by commands that only look, such as ``status`` and ``report``; they run no code that it names.
"""

import sys
from collections.abc import Collection, Iterable
from contextlib import redirect_stdout
from pathlib import Path

from lmc_tune.errors import UserError
from lmc_tune.experiment import BATCH_NORM_CONDITIONS, Condition, FactorySpec, GroupSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.reading import SpaceError


def check_factories(pairs: Iterable[GroupSpec], conditions: Collection[Condition] = ()) -> None:
    """Call every factory that the pairs name, with its arguments. Where there is none, torch is not imported.

    Args:
        pairs: all of a space.
        conditions: those that the space asks for by name.

    Raises:
        SpaceError: naming each that cannot be imported or called, or returns no ``torch.nn.Module``, or one that does
            not fit the data, or cannot be stacked though the space asks for it; or the conditions that would change
            nothing, since no network has BatchNorm.
    """
    pairs = list(pairs)
    wanted = {
        (pair.model.model_dump_json(), pair.dataset.name, pair.train.engine): pair
        for pair in pairs
        if isinstance(pair.model, FactorySpec)
    }
    if not wanted:
        return
    # They bring torch, whose import takes seconds.
    from lmc_tune.measurement.conditions import has_batch_norm  # noqa: PLC0415
    from lmc_tune.models.registry import build_model, check_fits  # noqa: PLC0415
    from lmc_tune.training.stacked import check_stackable  # noqa: PLC0415

    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # Ray does so for its workers
    problems: dict[str, None] = {}  # in order, and each once: a factory may be asked for several data sets
    normed = any(pair.model.may_have_batch_norm for pair in pairs if not isinstance(pair.model, FactorySpec))
    for pair in wanted.values():
        facts = facts_of(pair.dataset)
        try:
            with redirect_stdout(sys.stderr):  # ours is for the answer
                model = build_model(pair.model, facts.shape, facts.n_classes, seed=0)
                try:
                    check_fits(model, facts.shape, facts.n_classes)
                    if pair.train.engine == "stacked":
                        check_stackable(model)
                except UserError as error:
                    raise UserError(f"model.factory: the network of {pair.model.label} {error}") from error
        except UserError as error:
            problems[str(error)] = None
        else:
            normed |= has_batch_norm(model)
    if not problems and not normed and (useless := [name for name in conditions if name in BATCH_NORM_CONDITIONS]):
        problems[
            f"measure.conditions: {' and '.join(useless)} would change nothing: no network of the space has BatchNorm; "
            f"leave {'them' if len(useless) > 1 else 'it'} out"
        ] = None
    if problems:
        raise SpaceError(list(problems))

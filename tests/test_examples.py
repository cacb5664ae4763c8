"""The examples in the docstrings of the public functions: each has one, and it gives what it says."""

import doctest
import inspect
from collections.abc import Callable

import pytest

import lmc_tune
from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report import render
from lmc_tune.core.barrier import barrier
from lmc_tune.experiment import reading
from lmc_tune.measurement import measure_path
from lmc_tune.tables import store

PUBLIC = [
    lmc_tune.load_results,
    lmc_tune.measure,
    lmc_tune.open_run,
    lmc_tune.read_space,
    barrier,
    measure_path,
    map_regions,
    render,
]


def examples(function: Callable[..., object]) -> list[doctest.DocTest]:
    """Those of its docstring; names are those of its module."""
    module = inspect.getmodule(function)
    found = doctest.DocTestFinder().find(function, function.__name__, module=module, globs=dict(vars(module)))
    return [test for test in found if test.examples]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__name__)
def test_a_public_function_has_an_example_and_it_is_so(function):
    (test,) = examples(function)
    told: list[str] = []
    outcome = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert outcome.attempted > 1
    assert outcome.failed == 0, "".join(told)


def test_the_package_hands_on_what_its_rooms_have():
    assert set(lmc_tune.__all__) == {
        *("Measurement", "Run", "__version__", "load_results", "measure", "open_run", "read_space", "sweep"),
    }
    assert lmc_tune.load_results is store.load_results
    assert lmc_tune.read_space is reading.read_space
    with pytest.raises(AttributeError, match="has no attribute 'utils'"):
        lmc_tune.utils  # noqa: B018

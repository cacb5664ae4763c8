import pytest

from tests.analysis.measured import Measured, measured_run


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return measured_run(tmp_path_factory.mktemp("measured"))

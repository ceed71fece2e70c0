"""Fixtures of the tests of runs."""

import pytest

from tests.support.runs import make_events, record_run


@pytest.fixture
def stopped(tmp_path):
    return record_run(tmp_path, "r", make_events("stopped"))

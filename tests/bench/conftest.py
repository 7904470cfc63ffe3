from __future__ import annotations

import pytest
from made_up_results import MakeResults, make_up


@pytest.fixture
def make_results() -> MakeResults:
    return make_up

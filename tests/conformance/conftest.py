from __future__ import annotations

import pytest

REPORTS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORTS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many sets were proved is worth saying when nothing failed, too."""
    for text in terminalreporter.config.stash.get(REPORTS, []):
        terminalreporter.section("conformance")
        terminalreporter.write_line(text)


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> list[str]:
    """What is appended is printed at the end of the run."""
    return pytestconfig.stash.setdefault(REPORTS, [])

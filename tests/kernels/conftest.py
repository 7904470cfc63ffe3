from __future__ import annotations

import errno
import os

import pytest
from kernel_oracle import ORDINARY_USER, Oracle, Question, find_oracle

from taskclone.flags import CloneFlags

USERS = [None] if os.geteuid() else [None, ORDINARY_USER]

GATE = [Question("clone3", 0), Question("clone", 0, 17), Question("unshare", CloneFlags.FS)]


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """A system-call filter is no kernel: where one hides clone3 or unshare there is nothing to ask."""
    oracle = find_oracle(tmp_path_factory.mktemp("oracle"))
    filtered = [
        str(question)
        for question, answer in zip(GATE, oracle.ask(GATE), strict=True)
        if answer in (errno.ENOSYS, errno.EPERM)
    ]
    if filtered:
        pytest.skip(f"a filter answers for the kernel: {', '.join(filtered)}")
    return oracle


@pytest.fixture(scope="session", params=USERS, ids=["ordinary" if user else "itself" for user in USERS])
def user(request: pytest.FixtureRequest, oracle: Oracle) -> Oracle:
    """The oracle as whoever runs the tests, and where that is root, as an ordinary user too."""
    asker = Oracle(oracle.program, request.param)
    if not asker.exists():
        pytest.skip(f"this user namespace has no id {ORDINARY_USER} to become")
    return asker

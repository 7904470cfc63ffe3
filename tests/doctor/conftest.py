"""The doctor in a process of its own, in a world that is made for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import creator

Report = dict[str, dict[str, Any]]
"""By name of what was looked at."""

SCRIPT = """
import json
sys.path.insert(0, {tests!r})
import seccomp
from proc import children_of, descriptors, threads
from taskclone.doctor.examine import examine
examine()  # loads what it loads late: an ordinary user may not be able to
{world}
before = descriptors(), threads()
import dataclasses
found = [dataclasses.asdict(item) for item in examine()]
assert (descriptors(), threads()) == before
assert children_of(os.getpid()) == {{}}
try: os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | 0x40000000)
except ChildProcessError: pass
else: raise AssertionError("a child is left")
say(json.dumps(found))
"""


@pytest.fixture
def examine_in() -> Callable[[str], Report]:
    """What the doctor finds in a process that has run ``world`` first; it leaves no child, descriptor or thread."""

    def run(world: str) -> Report:
        tests = str(Path(__file__).parents[1])
        status, out, err = creator.run(SCRIPT.format(tests=tests, world=world))
        assert (status, err) == (0, "")
        return {found["name"]: found for found in json.loads(out)}

    return run

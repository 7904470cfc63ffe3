"""What `taskclone api` says is what strace says of the same programs, call by call."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from by_strace import Tree, traced, tree_of

from taskclone.flags import flag_names
from taskclone.outcome import signal_name
from taskclone.tracer.apis import APIS, Api
from taskclone.tracer.findings import Finding, look

pytestmark = pytest.mark.usefixtures("nothing_left")


def tree_by_us(finding: Finding) -> Tree:
    made: dict[int, Tree] = defaultdict(list)
    for seen in finding.calls:
        call = seen.call
        names = frozenset(flag_names(call.flags).split("|")) - {"0"}
        signal = signal_name(call.exit_signal) if call.exit_signal else ""
        made[seen.maker].append((call.system_call, names, signal, None if call.error else made[seen.number]))
    return made[0]


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
def test_both_say_the_same(api: Api, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: on Debian, apt install strace")
    finding = look(api)
    assert finding.failure == ""
    assert tree_by_us(finding) == traced(api.argv, tmp_path)


def test_the_reader_of_strace() -> None:
    """Lines of strace 6.1, two calls at a time, and one that fails."""
    log = """\
10 execve("/x", ["x"], 0x7 /* 1 var */) = 0
10 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 11
10 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD, stack=0x7f, stack_size=0x9000}, 88 <unfinished ...>
11 vfork( <unfinished ...>
10 <... clone3 resumed>) = 12
11 <... vfork resumed>)  = 13
11 +++ exited with 0 +++
12 clone3({flags=CLONE_VM|CLONE_THREAD, child_tid=0x7f, exit_signal=0, stack=0x7f}, 88) = -1 EINVAL (Invalid argument)
13 fork() = 14
14 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD <unfinished ...>
15 execve("/y", ["y"], 0x7 /* 1 var */) = 0
14 <... clone resumed>, child_tidptr=0x7f) = 15
"""
    assert tree_of(log) == [
        ("clone", {"CHILD_CLEARTID", "CHILD_SETTID"}, "SIGCHLD",
         [("vfork", {"VM", "VFORK"}, "SIGCHLD",
           [("fork", set(), "SIGCHLD", [("clone", {"CHILD_CLEARTID"}, "SIGCHLD", [])])])]),
        ("clone3", {"VM", "VFORK"}, "SIGCHLD", [("clone3", {"VM", "THREAD"}, "", None)]),
    ]  # fmt: skip

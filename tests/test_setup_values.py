"""ChildSetup: what each route refuses by name, and the value itself."""

from __future__ import annotations

import pickle
import signal
import subprocess
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from taskclone import PROCESS, SHARED, THREAD, ChildSetup, CloneFlags, FlagError, Plan, UnsupportedOperation, clone
from taskclone.childsetup import NOTHING
from taskclone.routes.setup import CALL, CARRIES, COPYING, STREAMS

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags

# ---- what is refused ------------------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "cwd": "/",
    "environment": {},
    "signals": {signal.SIGUSR1: "ignore"},
    "sigmask": (),
    "parent_death_signal": signal.SIGKILL,
    "close_fds": True,
    "uid_map": 0,
    "gid_map": 0,
    "core": True,
    **dict.fromkeys(STREAMS, subprocess.DEVNULL),
    "bare": True,
    "leave_out": (bytearray(1 << 16),),
}
BODIES: dict[str, tuple[Any, Any]] = {
    "copied": (int, PROCESS), "shared": (int, F.VM), "thread": (int, THREAD), "program": (["true"], PROCESS),
}  # fmt: skip


def plan_with(field: str, flags: Any) -> Plan:
    if field in (*STREAMS, *COPYING):
        return Plan(flags, **{field: VALUES[field]})
    if field.endswith("_map") and not flags & F.THREAD:
        flags |= F.NEWUSER
    return Plan(flags, setup=ChildSetup(**{field: VALUES[field]}))


def test_the_table_has_all_fields_and_routes() -> None:
    assert {field.name for field in fields(ChildSetup)} | {*STREAMS, *COPYING} == set(VALUES)
    assert set(CARRIES) == set(BODIES)
    # What is of the call itself: tests/test_call_fields.py.
    assert set().union(*CARRIES.values()) == {*VALUES, *CALL}, "each is carried by some route"


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("field", VALUES)
def test_what_a_route_does_not_carry_is_refused_by_name(route: str, field: str) -> None:
    body, flags = BODIES[route]
    if field in CARRIES[route]:
        task = plan_with(field, flags).start(body)
        assert (task.result(10), task.route) == (0, route)
        task.wait(10)
    else:
        # By a rule where the flags exclude it (what a thread shares), else by the route.
        with pytest.raises((UnsupportedOperation, FlagError), match=rf"\b{field}\b"):
            plan_with(field, flags).start(body)


@pytest.mark.parametrize(
    ("field", "flags"),
    [("cwd", F.VM | F.FS), ("signals", F.VM | F.SIGHAND), *((name, F.VM | F.FILES) for name in STREAMS)],
)
def test_what_would_be_done_to_the_creator_is_refused(field: str, flags: F) -> None:
    with pytest.raises((UnsupportedOperation, OSError), match=rf"\b{field}\b"):
        plan_with(field, flags).start(int)


@pytest.mark.parametrize("field", ["cwd", "close_fds", *STREAMS])
def test_the_same_for_programs(field: str) -> None:
    with pytest.raises((UnsupportedOperation, OSError), match=rf"\b{field}\b"):
        plan_with(field, F.FS if field == "cwd" else F.FILES).start(["true"])  # type: ignore[arg-type]


def test_fatal_signals_of_a_shared_task_are_its_own() -> None:
    for name in ["SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS", "QUIT", "XCPU", "XFSZ"]:
        with pytest.raises(UnsupportedOperation, match=f"SIG{name}"):
            clone(int, flags=SHARED, setup=ChildSetup(signals={signal.Signals[f"SIG{name}"]: "ignore"}))


# ---- the value ------------------------------------------------------------------------------------------------------

WHOLE = ChildSetup(
    cwd=Path("/"),
    environment={"b": "1", "a": "2"},
    signals={signal.SIGUSR2: "ignore", 1: "default"},
    sigmask=[signal.SIGUSR2, 1, 1],
    parent_death_signal=9,
    close_fds=True,
)


def test_a_setup_is_a_value() -> None:
    assert WHOLE.signals == ((1, "default"), (int(signal.SIGUSR2), "ignore"))
    assert WHOLE.sigmask == (1, int(signal.SIGUSR2))
    assert WHOLE.environment == ((b"a", b"2"), (b"b", b"1"))
    for copy in (pickle.loads(pickle.dumps(WHOLE)), replace(WHOLE), replace(WHOLE, core=True, cwd=None)):
        assert hash(copy)
        assert copy.signals == WHOLE.signals
    assert replace(WHOLE) == WHOLE != NOTHING
    assert hash(replace(WHOLE)) == hash(WHOLE)


def _fields(**values: Any) -> Callable[[], ChildSetup]:
    return lambda: ChildSetup(**values)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (_fields(cwd=""), ValueError, "cwd"),
        (_fields(cwd="a\0b"), ValueError, "cwd"),
        (_fields(cwd=3), TypeError, "cwd"),
        (_fields(environment=["A=b"]), TypeError, "environment"),
        (_fields(environment={"A": 1}), TypeError, "environment"),
        (_fields(environment={"A=": "b"}), ValueError, "environment"),
        (_fields(environment={"A": "\0"}), ValueError, "environment"),
        (_fields(signals=[1]), TypeError, "signals"),
        (_fields(signals={"TERM": "ignore"}), TypeError, "signals"),
        (_fields(signals={True: "ignore"}), TypeError, "signals"),
        (_fields(signals={1: "block"}), ValueError, "'default' or 'ignore', not 'block'"),
        (_fields(signals={1: print}), ValueError, "'default' or 'ignore'"),
        (_fields(signals={1: []}), ValueError, "'default' or 'ignore'"),
        (_fields(signals={signal.SIGKILL: "ignore"}), ValueError, "SIGKILL cannot"),
        (_fields(signals={32: "ignore"}), ValueError, "32"),
        (_fields(sigmask=5), TypeError, "sigmask"),
        (_fields(sigmask="USR1"), TypeError, "sigmask"),
        (_fields(sigmask={0}), ValueError, "sigmask: 0"),
        (_fields(sigmask={65}), ValueError, "sigmask: 65"),
        (_fields(sigmask={signal.SIGSTOP}), ValueError, "SIGSTOP cannot be blocked"),
        (_fields(parent_death_signal=0), ValueError, "parent_death_signal"),
        (_fields(parent_death_signal="KILL"), TypeError, "parent_death_signal"),
        (_fields(close_fds=1), TypeError, "close_fds"),
        (_fields(core=None), TypeError, "core"),
    ],
)
def test_bad_values(make: Callable[[], ChildSetup], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()

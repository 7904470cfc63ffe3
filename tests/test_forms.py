"""Which form a copy takes, what a plan says of it, and what is refused before anything is started."""

from __future__ import annotations

import array
import errno
import mmap
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from taskclone import SHARED, THREAD, ChildSetup, CloneFlags, FlagError, Plan, UnsupportedOperation, clone, fork
from taskclone.explain import explain_set
from taskclone.flags import ROWS
from taskclone.forms import form_of, why
from taskclone.launch import check

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
ONLY_BY_THE_CREATOR = [F.FILES, F.FS, F.SYSVSEM, F.IO]
FORMS = [
    (F(0), False, "fork"),
    (F.CHILD_SETTID | F.CHILD_CLEARTID, False, "fork"),
    (F.NEWPID, False, "relay"),
    (F.CLEAR_SIGHAND | F.CHILD_SETTID, False, "relay"),
    (F.VFORK, False, "relay"),
    (F.FILES | F.NEWPID, False, "bare"),
    (F(0), True, "bare"),
    (F.NEWNET, True, "bare"),
]


def never() -> None:
    raise AssertionError("a body ran")


@pytest.mark.parametrize(("flags", "bare", "form"), FORMS)
def test_the_form_of_a_set(flags: F, bare: bool, form: str) -> None:
    assert form_of(flags, bare) == form
    line = f"how memory is copied for a function: {form}: "
    assert line in Plan(flags, bare=bare).explain()
    assert line in explain_set(flags, bare=bare)


@pytest.mark.parametrize("member", ONLY_BY_THE_CREATOR, ids=lambda member: member.name)
def test_what_only_the_creator_can_share_makes_it_bare(member: F) -> None:
    assert form_of(member) == "bare"
    assert f"CLONE_{member.name} can be shared only" in why(member | F.NEWUTS)
    assert "NEWUTS" not in why(member | F.NEWUTS)


def test_the_reason_names_the_flags() -> None:
    assert "cannot say CLONE_UNTRACED, CLONE_NEWPID, so" in why(F.NEWPID | F.UNTRACED | F.CHILD_SETTID)
    assert "bare=True" in why(F(0), True)


@pytest.mark.parametrize("flags", [SHARED, THREAD, F.VM])
def test_where_memory_is_shared_no_form_is_told(flags: F) -> None:
    assert "how memory is copied" not in Plan(flags).explain()


@pytest.mark.parametrize(
    ("plan", "end"),
    [
        (Plan(), "gets SIGCHLD"),
        (Plan("NEWPID"), "gets SIGCHLD"),
        (Plan("FILES"), "gets no signal"),
        (Plan(bare=True), "gets no signal"),
        (Plan(bare=True, exit_signal=signal.SIGUSR1), "gets SIGUSR1"),
        (Plan("VM"), "gets no signal"),
    ],
)
def test_explain_knows_the_exit_signal_of_each_form(plan: Plan, end: str) -> None:
    (line,) = [line for line in plan.explain().splitlines() if line.startswith("its end")]
    assert end in line


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"bare": True}, {"leave_out": [bytearray(8192)]}], ids=["bare", "leave_out"])
@pytest.mark.parametrize("flags", [F.VM, SHARED, THREAD], ids=str)
def test_words_on_copying_do_not_go_with_shared_memory(flags: F, fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(FlagError, match=f"does not go with {name}: CLONE_VM shares memory") as caught:
        Plan(flags, **fields)
    assert (caught.value.errno, caught.value.rule) == (errno.EINVAL, "vm-copy")


@pytest.mark.parametrize("fields", [{"bare": True}, {"leave_out": [bytearray(8192)]}], ids=["bare", "leave_out"])
def test_nor_with_a_program(fields: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOperation, match="no memory is copied for a program"):
        clone(["true"], **fields)


@pytest.mark.parametrize("flags", ["", "NEWUSER", "VFORK"])
@pytest.mark.parametrize("number", [0, signal.SIGUSR1])
def test_an_exit_signal_of_ones_own_needs_a_bare_copy(flags: str, number: int) -> None:
    with pytest.raises(UnsupportedOperation, match="bare=True"):
        clone(never, flags=flags, exit_signal=number)
    assert clone(int, flags=flags, exit_signal=signal.SIGCHLD).result(10) == 0


@pytest.mark.parametrize("flags", [F.VM, SHARED, THREAD, F.VFORK, F.VFORK | F.NEWPID], ids=str)
def test_what_fork_cannot_have(flags: F) -> None:
    with pytest.raises(FlagError) as caught:
        fork(flags)
    assert (caught.value.errno, caught.value.rule) == (errno.EINVAL, "fork-goes-on-in-both")
    assert "VM" in str(caught.value) or "VFORK" in str(caught.value)


def test_fork_has_the_rules_of_every_start() -> None:
    with pytest.raises(FlagError) as caught:
        fork("FS|NEWNS")
    assert caught.value.rule == "fs-new-mounts"
    with pytest.raises(FlagError, match="cwd"):
        fork("FS", ChildSetup(cwd="/"))
    with pytest.raises(UnsupportedOperation, match="core"):
        fork(setup=ChildSetup(core=True))
    with pytest.raises(TypeError, match="ChildSetup"):
        fork(0, "/")  # type: ignore[arg-type]


def test_every_flag_that_this_kernel_takes_has_a_form() -> None:
    for member in ROWS:
        try:
            plan = Plan(member)
        except FlagError:
            continue
        if member != F.VM:
            assert plan.form in ("fork", "relay", "bare")
            check(plan)


def test_what_is_between_the_task_and_its_creator_is_said_by_the_creator() -> None:
    for flag in (F.FILES, F.FS, F.SYSVSEM, F.IO, F.PARENT, F.AUTOREAP, F.PIDFD_AUTOKILL):
        assert form_of(flag | F.NEWUTS) == "bare"
    assert form_of(F.NEWUTS) == form_of(0, numbered=True) == "relay"
    assert Plan(set_tid=4).form == "relay"
    assert "set_tid" in Plan(set_tid=4).explain()


# ---- the fields as values -------------------------------------------------------------------------------------------


def test_plans_with_a_bare_copy_are_values() -> None:
    plan = Plan("FILES", bare=True, name="w")
    assert plan == Plan("FILES", bare=True, name="w") != Plan("FILES", name="w")
    assert hash(plan) == hash(Plan("FILES", bare=True, name="w"))
    assert repr(plan) == "Plan('FILES', name='w', bare=True)"
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert replace(plan, flags=0).bare


def test_plans_are_equal_by_the_identity_of_what_they_leave_out() -> None:
    one, other = bytearray(8192), bytearray(8192)
    plan = Plan(leave_out=[one])
    assert plan == Plan(leave_out=(one,)) == replace(plan, daemon=False)
    assert hash(plan) == hash(Plan(leave_out=[one]))
    assert len({plan, Plan(leave_out=[one]), Plan(leave_out=[other]), Plan(leave_out=[one, other]), Plan()}) == 4
    assert repr(plan) == "Plan('0', leave_out=[<bytearray of 8192 bytes>])"
    assert Plan(leave_out=[]) == Plan()


def test_a_plan_that_leaves_something_out_refuses_to_be_pickled() -> None:
    with pytest.raises(TypeError, match="leave_out"):
        pickle.dumps(Plan(leave_out=[bytearray(8192)]))


def _plan(**fields: Any) -> Callable[[], Plan]:
    return lambda: Plan(**fields)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (_plan(bare=1), TypeError, "bare must be True or False"),
        (_plan(bare=None), TypeError, "bare"),
        (_plan(leave_out=bytearray(8192)), TypeError, "a list of buffers, not bytearray"),
        (_plan(leave_out=None), TypeError, "leave_out"),
        (_plan(leave_out=["text"]), TypeError, "must hold buffers, not str"),
        (_plan(leave_out=[memoryview(bytes(8192))[::2]]), ValueError, "in pieces"),
    ],
)
def test_bad_values(make: Callable[[], Plan], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    "small",
    [bytearray(100), b"x" * 4096, array.array("d", [0.0] * 100), memoryview(bytearray(1 << 16))[:50], bytearray()],
    ids=lambda small: type(small).__name__,
)
def test_a_buffer_without_a_whole_page_is_an_error(small: Any) -> None:
    with mmap.mmap(-1, 1 << 16) as large, pytest.raises(ValueError, match=r"leave_out\[1\].*no whole page"):
        clone(never, leave_out=[large, small])

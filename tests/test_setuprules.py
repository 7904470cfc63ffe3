"""The rules over flags and setup: what is shared with the creator cannot be set for the child alone."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from taskclone import SHARED, THREAD, ChildSetup, CloneFlags, FlagError, Plan, call, clone
from taskclone.plan import PlanFields
from taskclone.rules import Context, broken, require_legal
from taskclone.setuprules import SETUP_RULES

F = CloneFlags
CWD = ChildSetup(cwd="/")
STREAMS = ["stdin", "stdout", "stderr"]

# As DESIGN has them; what this version has no field for is here by the name that it is to get.
PAIRS = {
    F.FS: ["cwd", "umask", "chroot"],
    F.FILES: ["close_fds", "pass_fds", *STREAMS],
    F.SIGHAND: ["signals"],
    F.THREAD: ["rlimits", "session", "process_group", "timers"],
    F.VM: ["oom_score", "memory"],
}
OF_THE_TASK_ALONE = {"environment", "core", "name", "sigmask", "parent_death_signal", "uid_map", "gid_map"}
"""Fields that no flag shares, or that a route sees to."""

pytestmark = pytest.mark.usefixtures("nothing_left")


def legal_with(flag: F) -> F:
    """The smallest legal set with the flag."""
    return {F.THREAD: F.VM | F.SIGHAND | F.THREAD, F.SIGHAND: F.VM | F.SIGHAND}.get(flag, flag)


@pytest.mark.parametrize(("flag", "name"), [(flag, name) for flag, names in PAIRS.items() for name in names])
def test_each_pair_is_refused_and_both_sides_are_named(flag: F, name: str) -> None:
    flags = legal_with(flag)
    context = Context(setup=frozenset({name, "environment"}))
    with pytest.raises(FlagError) as caught:
        require_legal(flags, context)
    assert (caught.value.errno, caught.value.rule) == (errno.EINVAL, f"{flag.name.lower()}-setup")
    text = str(caught.value)
    assert f"does not go with {name}: CLONE_{flag.name} " in text
    assert f"so {name} in the child would change the creator's too; leave CLONE_{flag.name} or {name} out" in text
    assert "{" not in text
    assert "environment" not in text
    # Each side alone is legal, and so is the flag's absence.
    assert broken(flags, Context()) == []
    assert broken(F(0), context) == []


@pytest.mark.parametrize("name", [name for names in PAIRS.values() for name in names])
def test_a_field_is_refused_by_its_own_flag_only(name: str) -> None:
    everything = F.FS | F.FILES | THREAD
    rules = broken(everything, Context(setup=frozenset({name})))
    assert [rule.all_of for rule in rules] == [flag for flag, names in PAIRS.items() if name in names]


def test_nothing_more_is_in_the_rules() -> None:
    assert {rule.all_of: list(rule.setup) for rule in SETUP_RULES} == PAIRS
    assert not any(rule.kernel_refuses for rule in SETUP_RULES)


def test_every_field_of_the_setup_has_been_thought_of() -> None:
    """A new field of ChildSetup belongs into a rule, or into the list above."""
    ruled = {name for names in PAIRS.values() for name in names}
    assert {field.name for field in dataclasses.fields(ChildSetup)} <= ruled | OF_THE_TASK_ALONE
    assert set(STREAMS) <= set(PlanFields.__annotations__)


def test_the_kernels_own_rules_come_first() -> None:
    with pytest.raises(FlagError) as caught:
        require_legal(F.FS | F.NEWNS, Context(setup=frozenset({"cwd"})))
    assert caught.value.rule == "fs-new-mounts"
    assert str(caught.value).endswith("(broken as well: fs-setup)")


def test_several_fields_are_all_named() -> None:
    with pytest.raises(
        FlagError, match=r"VM\|FILES does not go with stdin, stderr: .* leave CLONE_FILES or stdin, stderr"
    ):
        Plan(SHARED, stdin=0, stderr=subprocess.STDOUT)


# ---- the plan says what is in use -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "fields", "rule"),
    [
        ("FS", {"setup": CWD}, "fs-setup"),
        ("VM|FS", {"setup": CWD}, "fs-setup"),
        (THREAD, {"setup": CWD}, "fs-setup"),
        ("FILES", {"stdin": subprocess.DEVNULL}, "files-setup"),
        (SHARED, {"stdout": 1}, "files-setup"),
        (SHARED, {"stderr": subprocess.STDOUT}, "files-setup"),
        (THREAD, {"stdout": 0}, "files-setup"),
    ],
)
def test_a_plan_that_contradicts_itself(flags: Any, fields: dict[str, Any], rule: str) -> None:
    def never() -> None:
        raise AssertionError("a body ran")

    here = os.getcwd()
    starts = [lambda: Plan(flags, **fields), lambda: clone(never, flags=flags, **fields)]
    starts += [lambda: clone(["true"], flags=flags, **fields), lambda: call(["true"], flags=flags, **fields)]
    for start in starts:
        with pytest.raises(FlagError) as caught:
            start()
        assert (caught.value.errno, caught.value.rule) == (errno.EINVAL, rule)
    assert os.getcwd() == here


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        (0, {"setup": CWD, "stdout": 1}),
        (SHARED, {"setup": CWD}),
        ("VM|FS", {"stdin": subprocess.DEVNULL}),
        (THREAD & ~F.FS, {"setup": CWD}),
        (THREAD & ~F.FILES, {"stdout": 1}),
        (THREAD, {"setup": ChildSetup(environment={"A": "b"}, core=True)}),
        ("VM|FS|FILES|SIGHAND", {"setup": ChildSetup()}),
    ],
)
def test_a_plan_whose_sides_go_together(flags: Any, fields: dict[str, Any]) -> None:
    assert Plan(flags, **fields).flag_set == Plan(flags).flag_set


def test_a_setup_that_goes_with_the_flags_is_the_childs_alone(tmp_path: Path) -> None:
    """What the rules let pass does not reach the creator: SHARED has a working directory, VM|FS descriptors apart."""
    here = os.getcwd()
    with open(tmp_path / "out", "w+b") as file:
        assert call(["sh", "-c", "pwd >here"], flags=SHARED, setup=ChildSetup(cwd=tmp_path)) == 0
        assert call(["pwd"], flags="VM|FS", stdout=file) == 0
        file.seek(0)
        assert os.fsdecode(file.read()).strip() == here
    assert (tmp_path / "here").read_text().strip() == str(tmp_path)
    assert os.getcwd() == here

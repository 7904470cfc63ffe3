"""The rules about flags: against the table and by example; tests/kernels holds them against the running kernel."""

from __future__ import annotations

import errno
import itertools
import os
from typing import Any, get_args

import pytest

from taskclone.errors import FlagError
from taskclone.flags import ROWS, THREAD, UNSHARE_EMPTY_MNTNS, Call, CloneFlags, members
from taskclone.rule import has_sys_admin, running_kernel
from taskclone.rules import RULES, Context, broken, missing_privilege, require_legal

F = CloneFlags
NEW = (7, 1)


# --- the rules and the table ------------------------------------------------------------------------------------------
def test_ids_are_unique_and_calls_known() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert {call for rule in RULES for call in rule.calls} == set(get_args(Call)) - {"setns"}


@pytest.mark.parametrize("member", [m for m in F if ROWS[m].requires], ids=lambda m: m.name)
def test_what_the_table_requires_the_rules_require(member: F) -> None:
    context = Context(kernel=NEW)
    whole = member
    while (more := whole | _required(whole)) != whole:
        whole = more
    assert broken(whole, context) == []
    for needed in members(ROWS[member].requires):
        rules = broken(whole & ~needed, context)
        assert any(rule.all_of == member and rule.lacking & needed for rule in rules)


def _required(flags: F) -> F:
    return F(sum({int(m) for member in members(flags) for m in members(ROWS[member].requires)}))


def test_what_the_table_excludes_the_rules_exclude_and_nothing_else() -> None:
    """Pairs of clone3 on 7.1; the table leaves out what only one call or only some kernels refuse."""
    by_table = {frozenset((m, other)) for m, row in ROWS.items() for other in members(row.excludes)}
    by_rules = {
        frozenset(pair)
        for pair in itertools.combinations((m for m in F if "clone3" in ROWS[m].accepted_by), 2)
        if any(not rule.lacking for rule in broken(pair[0] | pair[1], Context(kernel=NEW)))
    }
    assert by_rules == by_table


# --- each rule by example ---------------------------------------------------------------------------------------------
EXAMPLES: list[tuple[str, int, int, dict[str, Any]]] = [
    # id of the first broken rule, errno, flags, context
    ("cannot-say-to-clone", errno.EINVAL, F.NEWTIME, {"call": "clone"}),
    ("cannot-say-to-clone", errno.EINVAL, F.NNP, {"call": "clone"}),
    ("not-for-clone3", errno.EINVAL, F.DETACHED, {}),
    ("unknown-bits", errno.EINVAL, 1 << 40, {}),
    ("signal-in-flags", errno.EINVAL, 17, {}),
    ("since-7.1", errno.EINVAL, F.AUTOREAP, {"kernel": (7, 0)}),
    ("exit-signal-range", errno.EINVAL, 0, {"exit_signal": 65, "kernel": (5, 10)}),
    ("exit-signal-range-clone", errno.EINVAL, 0, {"exit_signal": 65, "call": "clone"}),
    ("sighand-clear-sighand", errno.EINVAL, F.VM | F.SIGHAND | F.CLEAR_SIGHAND, {}),
    ("exit-signal-parent-thread", errno.EINVAL, F.PARENT, {"exit_signal": 17}),
    ("exit-signal-parent-thread", errno.EINVAL, THREAD, {"exit_signal": 17}),
    ("half-a-stack", errno.EINVAL, 0, {"missing": ("stack",)}),
    ("half-a-stack", errno.EINVAL, 0, {"missing": ("stack_size",)}),
    ("pidfd-parent-settid", errno.EINVAL, F.PIDFD | F.PARENT_SETTID, {"call": "clone"}),
    ("fs-new-mounts", errno.EINVAL, F.FS | F.NEWNS, {"call": "clone"}),
    ("fs-new-mounts", errno.EINVAL, F.FS | F.EMPTY_MNTNS, {}),
    ("fs-new-user", errno.EINVAL, F.FS | F.NEWUSER, {}),
    ("thread-needs-sighand", errno.EINVAL, F.THREAD | F.VM, {}),
    ("sighand-needs-vm", errno.EINVAL, F.SIGHAND, {}),
    ("parent-of-init", errno.EINVAL, F.PARENT, {"is_init": True}),
    ("thread-new-namespace", errno.EINVAL, THREAD | F.NEWPID, {}),
    ("thread-after-unshare-pid", errno.EINVAL, THREAD, {"unshared_pid": True}),
    ("vm-after-unshare-time", errno.EINVAL, F.VM, {"unshared_time": True, "kernel": (6, 1)}),
    ("pidfd-detached", errno.EINVAL, F.PIDFD | F.DETACHED, {"call": "clone"}),
    ("pidfd-thread", errno.EINVAL, THREAD | F.PIDFD, {"kernel": (6, 8)}),
    ("autoreap-parent-thread", errno.EINVAL, F.AUTOREAP | F.PARENT, {}),
    ("autoreap-exit-signal", errno.EINVAL, F.AUTOREAP, {"exit_signal": 17}),
    ("nnp-thread", errno.EINVAL, THREAD | F.NNP, {}),
    ("nnp-thread", errno.EINVAL, THREAD | F.NNP, {"kernel": (6, 1), "emulated": F.NNP}),
    ("maps-new-user", errno.EINVAL, F.VM, {"setup": {"uid_map"}}),
    ("parent-death-sibling", errno.EINVAL, F.PARENT, {"setup": {"parent_death_signal"}}),
    ("autokill-needs-pidfd-autoreap", errno.EINVAL, F.PIDFD_AUTOKILL | F.PIDFD, {}),
    ("not-for-unshare", errno.EINVAL, F.VFORK, {"call": "unshare"}),
    ("not-for-unshare", errno.EINVAL, F.EMPTY_MNTNS, {"call": "unshare"}),
    ("empty-mounts-unshare", errno.EINVAL, UNSHARE_EMPTY_MNTNS, {"call": "unshare", "kernel": (7, 0)}),
    ("unshare-in-thread", errno.EINVAL, F.NEWUSER, {"call": "unshare", "threaded": True}),
    ("unshare-handlers", errno.EINVAL, F.SIGHAND, {"call": "unshare", "shares_handlers": True}),
    ("unshare-memory", errno.EINVAL, F.VM, {"call": "unshare", "shares_memory": True}),
    ("autokill-privilege", errno.EPERM, F.PIDFD_AUTOKILL | F.PIDFD | F.AUTOREAP | F.NEWUSER, {"privileged": False}),
    ("namespace-privilege", errno.EPERM, F.NEWNET, {"privileged": False}),
    ("namespace-privilege", errno.EPERM, F.NEWIPC | F.SYSVSEM, {"privileged": False}),
    ("empty-mounts-privilege", errno.EPERM, UNSHARE_EMPTY_MNTNS, {"call": "unshare", "privileged": False}),
    ("sysvsem-new-ipc", errno.EINVAL, F.NEWIPC | F.SYSVSEM, {"privileged": True}),
    ("new-pid-after-unshare-pid", errno.EINVAL, F.NEWPID, {"unshared_pid": True}),
    ("pidfd-pointer", errno.EFAULT, F.PIDFD, {"missing": ("pidfd",)}),
    ("cgroup-descriptor", errno.EBADF, F.INTO_CGROUP, {"missing": ("cgroup",)}),
    ("thread-into-cgroup", errno.EOPNOTSUPP, THREAD | F.INTO_CGROUP, {"other_domain": True}),
    ("fs-setup", errno.EINVAL, F.FS, {"setup": {"umask"}}),
    ("files-setup", errno.EINVAL, F.VM | F.FILES, {"setup": {"close_fds"}}),
    ("sighand-setup", errno.EINVAL, F.VM | F.SIGHAND, {"setup": {"signals"}}),
    ("thread-setup", errno.EINVAL, THREAD, {"setup": {"session"}}),
    ("vm-setup", errno.EINVAL, F.VM, {"setup": {"memory"}}),
    ("vm-copy", errno.EINVAL, F.VM | F.FILES, {"setup": {"leave_out"}}),
]


@pytest.mark.parametrize(("id", "number", "flags", "context"), EXAMPLES)
def test_a_broken_rule_is_a_flag_error_with_its_errno(
    id: str, number: int, flags: int, context: dict[str, Any]
) -> None:
    with pytest.raises(FlagError) as caught:
        require_legal(F(flags), Context(**{"kernel": NEW, **context}))
    assert (caught.value.rule, caught.value.errno) == (id, number)
    message = str(caught.value)
    assert "{" not in message
    assert next(rule for rule in RULES if rule.id == id).text(F(flags), context.get("setup", ())) in message


def test_every_rule_has_an_example() -> None:
    assert {id for id, *_ in EXAMPLES} == {rule.id for rule in RULES}


@pytest.mark.parametrize(
    ("flags", "context"),
    [
        (0, {}),
        (F.VM | F.FILES, {}),
        (THREAD, {}),
        (THREAD | F.PIDFD, {"kernel": (6, 9)}),
        (F.VM, {"unshared_time": True, "kernel": (6, 2)}),
        (0, {"exit_signal": 64}),
        (0, {"exit_signal": 65, "call": "clone", "kernel": (7, 0)}),
        (THREAD, {"exit_signal": 17, "call": "clone"}),  # clone(2) ignores it
        (F.DETACHED, {"call": "clone"}),
        (F.NEWNET | F.NEWUSER, {"privileged": False}),
        (F.NEWNET, {"privileged": None}),
        (F.PIDFD_AUTOKILL | F.PIDFD | F.AUTOREAP | F.NNP, {"privileged": False}),
        (UNSHARE_EMPTY_MNTNS, {"call": "unshare"}),
        (F.FS | F.NEWNS | F.SYSVSEM | F.NEWIPC, {"call": "unshare"}),
        (F.FILES | F.NEWNS, {"call": "unshare", "threaded": True}),
        (1 << 40, {"kernel": (7, 4)}),  # a kernel newer than the table decides for itself
    ],
)
def test_a_legal_set_breaks_nothing(flags: int, context: dict[str, Any]) -> None:
    require_legal(F(flags), Context(**{"kernel": NEW, **context}))


@pytest.mark.parametrize("flags", [F.THREAD, F.THREAD | F.VM, F.THREAD | F.SIGHAND, F.THREAD | F.FILES])
def test_the_common_slip_is_named(flags: F) -> None:
    with pytest.raises(FlagError, match=r"use the preset taskclone\.THREAD \(0x3d0f00"):
        require_legal(flags, Context(kernel=NEW))


def test_the_message_says_set_reason_cure_and_the_other_rules() -> None:
    with pytest.raises(FlagError) as caught:
        require_legal(F.VM | F.SIGHAND | F.CLEAR_SIGHAND | F.FS | F.NEWNS, Context(kernel=NEW))
    text = str(caught.value)
    assert "clone3 cannot take VM|FS|SIGHAND|NEWNS|CLEAR_SIGHAND: " in text
    assert "CLONE_CLEAR_SIGHAND would reset the very handlers" in text
    assert "leave one of them out" in text
    assert text.endswith("(broken as well: fs-new-mounts)")


def test_missing_privilege_is_a_question_of_its_own() -> None:
    poor = Context(kernel=NEW, privileged=False)
    assert [rule.id for rule in missing_privilege(F.NEWNET | F.SIGHAND, poor)] == ["namespace-privilege"]
    assert missing_privilege(F.NEWNET, Context(kernel=NEW, privileged=True)) == []
    by_kernel = [] if has_sys_admin() else ["namespace-privilege"]
    assert [rule.id for rule in missing_privilege(F.NEWNET, Context(kernel=NEW))] == by_kernel


@pytest.mark.parametrize(
    "context", [{"call": "setns"}, {"exit_signal": -1}, {"call": "clone", "exit_signal": 256}], ids=str
)
def test_a_context_that_cannot_be_is_refused(context: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no rules for the call|cannot be negative|does not fit"):
        Context(**context)


def test_the_running_kernel_is_the_default() -> None:
    release = os.uname().release
    assert release.startswith(".".join(map(str, running_kernel())))
    assert Context().kernel == running_kernel()

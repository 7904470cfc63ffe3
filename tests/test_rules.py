"""The rules about flags: against the table, against their own examples, and against the running kernel.

The kernel's part is played by csrc/testing/rules_oracle.c, compiled here: it really makes each call.
"""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from taskclone.errors import FlagError
from taskclone.flags import ROWS, THREAD, UNSHARE_EMPTY_MNTNS, Call, CloneFlags, flag_names, members
from taskclone.rule import Argument, has_sys_admin, running_kernel
from taskclone.rules import RULES, Context, broken, missing_privilege, require_legal

F = CloneFlags
NEW = (7, 1)
SOURCE = Path(__file__).parents[1] / "csrc" / "testing" / "rules_oracle.c"


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
    assert next(rule for rule in RULES if rule.id == id).text(F(flags)) in message


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


# --- the running kernel as the oracle ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Question:
    """One system call to try; the situations are those of rules_oracle.c."""

    call: Call
    flags: int
    exit_signal: int = 0
    situation: str = "plain"

    def __str__(self) -> str:
        return f"{self.call} {flag_names(self.flags)} exit_signal={self.exit_signal} {self.situation}"

    def context(self) -> Context:
        """The same for the rules. The oracle never has an open group, and enters a user namespace where it must."""
        missing: list[Argument] = ["cgroup"]
        missing += [name for name in get_args(Argument) if self.situation == f"no-{name}"]
        return Context(
            call=self.call,
            privileged=has_sys_admin() or self.situation in ("unshared-pid", "unshared-time", "init"),
            exit_signal=self.exit_signal,
            threaded=self.situation == "thread",
            shares_memory=self.situation in ("vm", "sighand"),
            shares_handlers=self.situation == "sighand",
            is_init=self.situation == "init",
            unshared_pid=self.situation == "unshared-pid",
            unshared_time=self.situation == "unshared-time",
            missing=tuple(missing),
        )

    def expected(self) -> int:
        """The errno by the rules, 0 when they let it pass; only for questions that the kernel can be asked."""
        rules = broken(F(self.flags), self.context())
        return rules[0].errno if rules else 0

    def can_be_asked(self) -> bool:
        """Not what clone(2) would misread without a word: there the kernel is no judge."""
        return all(rule.kernel_refuses for rule in broken(F(self.flags), self.context()))


@dataclass(frozen=True)
class Oracle:
    """The compiled program."""

    program: Path

    def ask(self, questions: Sequence[Question]) -> list[int]:
        """The kernel's answers: errno, or 0. Each is put by a process of its own, and everything is reaped."""
        lines = [f"{q.call} {q.flags:#x} {q.exit_signal} {q.situation}\n" for q in questions]
        done = subprocess.run(
            [self.program], input="".join(lines), capture_output=True, text=True, timeout=60, start_new_session=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        answers = [int(line) for line in done.stdout.split()]
        assert len(answers) == len(questions)
        return answers


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """Compiled once. A system-call filter is no kernel: where one hides clone3 or unshare there is nothing to ask."""
    program = tmp_path_factory.mktemp("oracle") / "rules_oracle"
    compiler = os.environ.get("CC", "cc").split()
    flags = ["-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*compiler, *flags, "-o", program, SOURCE], check=True)
    oracle = Oracle(program)
    filtered = [
        str(question)
        for question, answer in zip(GATE, oracle.ask(GATE), strict=True)
        if answer in (errno.ENOSYS, errno.EPERM)
    ]
    if filtered:
        pytest.skip(f"a filter answers for the kernel: {', '.join(filtered)}")
    return oracle


GATE = [Question("clone3", 0), Question("clone", 0, 17), Question("unshare", F.FS)]


@pytest.fixture(scope="session")
def user_namespaces(oracle: Oracle) -> bool:
    """Whether this user may make user namespaces: sysctls and security modules decide, not the flags."""
    (answer,) = oracle.ask([Question("clone3", F.NEWUSER)])
    assert answer in (0, errno.EPERM, errno.ENOSPC, errno.EUSERS), os.strerror(answer)
    return answer == 0


SINGLES = [F(0), *F]
PAIRS = [first | second for first, second in itertools.combinations(F, 2)]
BASES = [F(0), F.VM, F.VM | F.SIGHAND, F.VM | F.SIGHAND | F.THREAD]
MANY = list(dict.fromkeys(int(base | flags) for base in BASES for flags in SINGLES + PAIRS))


def hold_against(oracle: Oracle, questions: Iterable[Question], user_namespaces: bool) -> None:
    """Fails with every question to which kernel and rules give different answers."""
    asked = []
    networks = 40  # a network namespace takes long to go away
    for question in questions:
        legal = question.expected() in (0, errno.EBADF)
        if not question.can_be_asked() or (question.flags & F.NEWUSER and legal and not user_namespaces):
            continue
        networks -= bool(legal and question.flags & F.NEWNET)
        if not (legal and question.flags & F.NEWNET) or networks >= 0:
            asked.append(question)
    assert asked
    wrong = [
        f"{question}: kernel {errno.errorcode.get(answer, answer)}, rules {errno.errorcode.get(question.expected(), 0)}"
        for question, answer in zip(asked, oracle.ask(asked), strict=True)
        if answer != question.expected()
    ]
    assert wrong == []


@pytest.mark.parametrize("call", ["clone3", "clone", "unshare"])
def test_singles_and_pairs_on_four_bases(oracle: Oracle, user_namespaces: bool, call: Call) -> None:
    hold_against(oracle, (Question(call, flags) for flags in MANY), user_namespaces)


@pytest.mark.parametrize("call", ["clone3", "unshare"])
def test_single_bits_named_or_not(oracle: Oracle, user_namespaces: bool, call: Call) -> None:
    hold_against(oracle, (Question(call, 1 << bit) for bit in range(64)), user_namespaces)


@pytest.mark.parametrize("call", ["clone3", "clone"])
def test_exit_signals_with_every_flag(oracle: Oracle, user_namespaces: bool, call: Call) -> None:
    signals = [1, 17, 64, 65, 127, 128, 255] + ([256, 1 << 31, 1 << 32] if call == "clone3" else [])
    questions = (Question(call, int(flags), signal) for flags in SINGLES for signal in signals)
    hold_against(oracle, questions, user_namespaces)


@pytest.mark.parametrize("situation", ["unshared-pid", "unshared-time", "init"])
def test_namespaces_that_the_caller_has_left_or_heads(oracle: Oracle, user_namespaces: bool, situation: str) -> None:
    if not (has_sys_admin() or user_namespaces):
        pytest.skip("this user may make no namespace to be in")
    sets = [*SINGLES, F.VM | F.SIGHAND, F.VM | F.SIGHAND | F.THREAD]
    # Without uid maps the oracle's own user namespace allows no second one, which is not a matter of flags.
    calls: tuple[Call, ...] = ("clone3", "clone", "unshare")
    questions = (Question(call, int(s), 0, situation) for call in calls for s in sets if not s & F.NEWUSER)
    hold_against(oracle, questions, user_namespaces)


@pytest.mark.parametrize("situation", ["thread", "vm", "sighand"])
def test_unshare_where_something_is_shared(oracle: Oracle, user_namespaces: bool, situation: str) -> None:
    questions = (Question("unshare", int(flags), 0, situation) for flags in SINGLES + PAIRS)
    hold_against(oracle, questions, user_namespaces)


@pytest.mark.parametrize("situation", ["no-stack", "no-stack_size", "no-pidfd"])
def test_arguments_that_are_left_out(oracle: Oracle, user_namespaces: bool, situation: str) -> None:
    questions = (Question("clone3", int(flags), 0, situation) for flags in SINGLES)
    hold_against(oracle, questions, user_namespaces)


def test_clone_drops_the_upper_half_without_a_word(oracle: Oracle) -> None:
    """Why cannot-say-to-clone exists although the kernel never refuses: the flag is simply gone."""
    wide = [Question("clone", 1 << bit) for bit in range(32, 64)]
    assert oracle.ask(wide) == [0] * 32
    assert all(not question.can_be_asked() for question in wide)


def test_the_oracle_leaves_no_task_behind(oracle: Oracle) -> None:
    sets = [0, F.VM, F.VM | F.VFORK, F.PARENT, F.PARENT | F.VM, THREAD, F.VM | F.SIGHAND]
    lines = "".join(f"clone3 {int(flags):#x} 0\nunshare 0x200 0 {s}\n" for flags in sets for s in ("vm", "thread"))
    process = subprocess.Popen(
        [oracle.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    answers, _ = process.communicate(lines, timeout=30)
    assert answers.split() == ["0"] * (4 * len(sets))
    assert _session_of(process.pid) == []


def _session_of(leader: int) -> list[str]:
    """Tasks of a session, the dead ones that nobody has reaped among them (/proc/PID/stat, field 6)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # ended meanwhile
            continue
        if int(text.rpartition(")")[2].split()[3]) == leader:
            found.append(text)
    return found

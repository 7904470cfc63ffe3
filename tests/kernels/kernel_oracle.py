"""The running kernel as the judge of the rules: questions, and csrc/testing/rules_oracle.c, which really asks them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from proc import SLOWNESS
from taskclone.flags import Call, CloneFlags, flag_names
from taskclone.rule import Argument, Rule, has_sys_admin, running_kernel
from taskclone.rules import Context, broken

SOURCE = Path(__file__).parents[2] / "csrc" / "testing" / "rules_oracle.c"
ORDINARY_USER = 65534
TIMEOUT = 120 * SLOWNESS
"""Seconds that the oracle has; 45,000 questions take it 10 at most."""
NO_SUCH_ID = 3
"""The oracle's exit status where it cannot become the ordinary user: in a user namespace without that id."""


@dataclass(frozen=True)
class Question:
    """One system call to try; the situations are those of rules_oracle.c."""

    call: Call
    flags: int
    exit_signal: int = 0
    situation: str = "plain"

    def __str__(self) -> str:
        return f"{self.call} {flag_names(self.flags)} exit_signal={self.exit_signal} {self.situation}"

    def context(self, privileged: bool) -> Context:
        """The same for the rules. The oracle never has an open group, and enters a user namespace where it must."""
        missing: list[Argument] = ["cgroup"]
        missing += [name for name in get_args(Argument) if self.situation == f"no-{name}"]
        return Context(
            call=self.call,
            privileged=privileged or self.situation in ("unshared-pid", "unshared-time", "init"),
            exit_signal=self.exit_signal,
            threaded=self.situation == "thread",
            shares_memory=self.situation in ("vm", "sighand"),
            shares_handlers=self.situation == "sighand",
            is_init=self.situation == "init",
            unshared_pid=self.situation == "unshared-pid",
            unshared_time=self.situation == "unshared-time",
            missing=tuple(missing),
        )


@dataclass(frozen=True)
class Oracle:
    """The compiled program, run by one user.

    Attributes:
        program: where it is.
        user: the id that it takes on first; None: it stays what these tests are.
    """

    program: Path
    user: int | None = None

    @property
    def privileged(self) -> bool:
        """Whether it has CAP_SYS_ADMIN when it asks."""
        return self.user is None and has_sys_admin()

    def command(self) -> list[str]:
        return [str(self.program), *([] if self.user is None else [str(self.user)])]

    def exists(self) -> bool:
        """Whether these tests may become that user."""
        done = subprocess.run(self.command(), input="", capture_output=True, text=True, timeout=20 * SLOWNESS)
        assert done.returncode in (0, NO_SUCH_ID), done.stderr
        return done.returncode == 0

    def ask(self, questions: Sequence[Question]) -> list[int]:
        """The kernel's answers: errno, or 0. Each is put by a process of its own, and everything is reaped."""
        lines = [f"{q.call} {q.flags:#x} {q.exit_signal} {q.situation}\n" for q in questions]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            self.command(), stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        try:
            out, err = process.communicate("".join(lines), timeout=TIMEOUT)
        except BaseException:  # out of time, or Ctrl-C: its tasks are all of its group
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        assert process.returncode == 0, err
        answers = [int(line) for line in out.split()]
        assert len(answers) == len(questions)
        no_task_is_left_of(process.pid)
        return answers

    def rules_against(self, question: Question) -> list[Rule]:
        """What the rules have against it, the kernel's first; [] when they let it pass."""
        return broken(CloneFlags(question.flags), question.context(self.privileged))

    def makes_user_namespaces(self) -> bool:
        """Whether this user may make user namespaces: sysctls and security modules decide, not the flags."""
        (answer,) = self.ask([Question("clone3", CloneFlags.NEWUSER)])
        assert answer in (0, errno.EPERM, errno.ENOSPC, errno.EUSERS), os.strerror(answer)
        return answer == 0


def no_task_is_left_of(leader: int) -> None:
    """Fails when there is a task of the oracle's session, a dead one that nobody has reaped among them."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{name}/stat").read_text()
        except OSError:  # ended meanwhile
            continue
        if int(text.rpartition(")")[2].split()[3]) == leader:
            found.append(text)
    assert not found, found


def find_oracle(folder: Path) -> Oracle:
    """The program out of the testing build; without one it is compiled into ``folder``."""
    if "TASKCLONE_BUILD" in os.environ:
        return Oracle(Path(os.environ["TASKCLONE_BUILD"], "csrc", "testing", "rules_oracle"))
    program = folder / "rules_oracle"
    compiler = os.environ.get("CC", "cc").split()
    flags = ["-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*compiler, *flags, "-o", program, SOURCE], check=True)
    return Oracle(program)


T = TypeVar("T")


def thinned(items: Sequence[T]) -> Sequence[T]:
    """All of them; in an emulated machine every n-th, another choice on each kernel."""
    step = max(1, round(SLOWNESS / 2))
    return items[sum(running_kernel()) % step :: step]


def is_taken(rules: Sequence[Rule]) -> bool:
    """Whether the kernel gets to the start, by these broken rules; the group, which is never open, comes last."""
    return not rules or rules[0].errno == errno.EBADF


def hold_against(oracle: Oracle, questions: Iterable[Question], networks: int = 40) -> int:
    """Fails with the questions to which kernel and rules give different answers; how many were asked.

    Left out are what clone(2) would misread without a word (there the kernel is no judge), sets with NEWUSER where
    this user may have no user namespace, and accepted sets with NEWNET beyond ``networks``: a network namespace takes
    long to go away.
    """
    asked: list[tuple[Question, int]] = []
    users = oracle.makes_user_namespaces()
    for question in questions:
        rules = oracle.rules_against(question)
        if not all(rule.kernel_refuses for rule in rules):
            continue
        if is_taken(rules):
            if question.flags & CloneFlags.NEWUSER and not users:
                continue
            if question.flags & CloneFlags.NEWNET:
                if not networks:
                    continue
                networks -= 1
        asked.append((question, rules[0].errno if rules else 0))
    assert asked
    answers = oracle.ask([question for question, _ in asked])
    wrong = [
        f"{question}: kernel {_word(answer)}, rules {_word(expected)}"
        for (question, expected), answer in zip(asked, answers, strict=True)
        if answer != expected
    ]
    assert not wrong, f"{len(wrong)} of {len(asked)} questions, the shortest of them:\n" + "\n".join(
        sorted(wrong, key=len)[:20]
    )
    return len(asked)


def _word(number: int) -> str:
    return errno.errorcode.get(number, f"errno {number}") if number else "starts it"

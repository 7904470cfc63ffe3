"""The observer: the creator's parent. It looks at each task from outside while that waits, and keeps the watch."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import json
import os
import select
import signal
import time
from collections.abc import Sequence
from typing import Any, Final

from creator_side import serve
from expectations import expected, granted_as_asked
from refusals import ALLOWED
from sets import NAMESPACES, SHARING, Case
from task_side import HANDLED, IGNORED, libc

from proc import SLOWNESS, Kcmp, children_of, shared_between

TIMEOUT: Final = 10 * SLOWNESS
MOST_FRESH_STARTS: Final = 5
"""Cases that hang, or end their creator, after which nothing more is tried."""


def look(creator: int, task: int) -> dict[str, Any]:
    """What the kernel says of a task that lives, and of its creator."""
    shared = shared_between(creator, task)
    found: dict[str, Any] = {f"kcmp {kind.name}": kind.name in shared for kind in Kcmp}
    for name in os.listdir(f"/proc/{task}/ns"):
        found[f"new {name}"] = _namespace(task, name) != _namespace(creator, name)
    numbers = status_of(task)
    found["in the creator's group"] = int(numbers["Tgid"]) == creator
    found["the creator's parent"] = int(numbers["PPid"]) == os.getpid()
    found["handler kept"] = bool(int(numbers["SigCgt"], 16) >> HANDLED - 1 & 1)
    found["ignored kept"] = bool(int(numbers["SigIgn"], 16) >> IGNORED - 1 & 1)
    return found


def status_of(task: int) -> dict[str, str]:
    """The fields of /proc/TASK/status."""
    with open(f"/proc/{task}/status", errors="replace") as file:
        return {field: value.strip() for field, _, value in (line.partition(":") for line in file)}


def _namespace(task: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{task}/ns/{name}")
    except FileNotFoundError:  # pid_for_children of a namespace whose init has not been made
        return "none yet"


class Proof:
    """Cases on trial, and what came out.

    Args:
        cases: what is asked for, and expected.
        instead: what the creator is to start in its place, for the tests of this very proof; None: what is asked for.
        timeout: seconds without a word after which a case is said to hang.

    Attributes:
        proved: by route, how many sets showed exactly what was expected.
        refused: by (route, reason), how many.
        failures: by case, what is wrong.
        seen: by observation, the answers that it has given rightly.
    """

    def __init__(self, cases: Sequence[Case], instead: Sequence[Case] | None = None, timeout: float = TIMEOUT) -> None:
        self.cases = cases
        self.started = cases if instead is None else instead
        self.timeout = timeout
        self.proved: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[tuple[str, str]] = collections.Counter()
        self.failures: list[str] = []
        self.seen: dict[str, set[Any]] = collections.defaultdict(set)
        self.seconds = 0.0

    def run(self) -> None:
        """All of them, with a fresh creator after each that hangs or has ended its own."""
        # The kernel reaps siblings, which are this process's children.
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        begun = time.monotonic()
        first = fresh = 0
        while first < len(self.cases):
            if fresh > MOST_FRESH_STARTS:
                self.failures.append(f"given up after {fresh} creators, before {self.cases[first]}")
                break
            first = _Creator(self, first).watch()
            fresh += 1
        self.seconds = time.monotonic() - begun
        signal.signal(signal.SIGCHLD, before)

    def judge(self, case: Case, found: dict[str, Any]) -> None:
        wanted = expected(case)
        wrong = [f"{name}: {found.get(name)}" for name, value in wanted.items() if found.get(name) != value]
        if "failed" in found:
            wrong.insert(0, found["failed"])
        if wrong:
            self.failures.append(f"{case}: {'; '.join(wrong)}")
            return
        self.proved[case.route] += 1
        for name, value in wanted.items():
            self.seen[name].add(value)

    def refuse(self, case: Case, message: str) -> None:
        for refusal in ALLOWED:
            if refusal.covers(case) and refusal.words in message:
                self.refused[case.route, refusal.reason] += 1
                return
        self.failures.append(f"{case}: refused, which is not allowed for: {message}")


class _Creator:
    """One creator at work, as its observer sees it."""

    def __init__(self, proof: Proof, first: int) -> None:
        self.proof, self.current = proof, first
        self.words, words = os.pipe()
        go, self.go = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self.words)
                os.close(self.go)
                serve(proof.started, first, words, go)
                os._exit(0)
            finally:
                os._exit(1)
        self.pidfd = os.pidfd_open(self.pid)  # it has sent no word yet, and waits for the first answer
        os.close(words)
        os.close(go)
        self.semaphore = -1
        self.rest = b""

    def watch(self) -> int:
        """To its end; the number of the case that comes next."""
        found: dict[str, Any] = {}
        ended = False
        while not ended:
            word = self._word()
            if word is None:
                self.proof.failures.append(f"{self.proof.cases[self.current]}: {self._why()}, after {found}")
                self.current += 1
                break
            if "semaphore" in word:
                self.semaphore = word["semaphore"]
                os.write(self.go, b"\n")
            elif "case" in word:
                self.current, found = word["case"], {}
            elif "refused" in word:
                self.proof.refuse(self.proof.cases[self.current], word["refused"])
            elif "end" in word:
                ended = True
                self.proof.failures += word["end"]
            else:
                self._step(word, found)
        self._finish()
        return len(self.proof.cases) if ended else self.current

    def _step(self, word: dict[str, Any], found: dict[str, Any]) -> None:
        case = self.proof.cases[self.current]
        if "ready" in word:
            try:
                found |= look(self.pid, word["ready"] or self._child_named(word["here"]))
            except OSError as error:
                found["failed"] = f"the look at it: {error!r}"
            found["ready"] = True
        elif "started" in word:
            found["creator slept"] = "inside" in found
            found["started"] = True
        elif "inside" in word:
            found |= word["inside"]
            parents = {0: "of another namespace", self.pid: "the creator", os.getpid(): "the creator's"}
            found["getppid"] = parents.get(word.get("ppid"))
            found["inside"] = True
        elif "failed" in word:
            found.setdefault("failed", word["failed"])
        elif "after" in word:
            found |= word["after"]
            found["granted"] = granted_as_asked(case, word["granted"], int(SHARING | NAMESPACES))
            self.proof.judge(case, found)
            return
        # A creator that does not sleep has come back before its task may go on, so the order proves which it was.
        sleeps = case.flags & SHARING.VFORK and case.door != "program"
        if "ready" in found and "gone on" not in found and ("started" in found or sleeps):
            os.write(self.go, b"\n")
            found["gone on"] = True

    def _child_named(self, here: int) -> int:
        """The task that knows only the id that it has in its own PID namespace: a child of the creator, or of this."""
        found = {child: self._name_of(child) for child in (*children_of(self.pid), *children_of(os.getpid()))}
        named = [child for child, name in found.items() if name == here]
        if len(named) != 1:
            raise ProcessLookupError(f"of {found} {named} have the id {here}")
        return named[0]

    def _name_of(self, child: int) -> int | None:
        """What it is called in its own PID namespace; None where it is gone."""
        try:
            return int(status_of(child)["NSpid"].split()[-1])
        except (FileNotFoundError, ProcessLookupError):
            return None

    def _word(self) -> dict[str, Any] | None:
        """The next line; None when there is none in time, or at the end."""
        poll = select.poll()
        poll.register(self.words, select.POLLIN)
        while b"\n" not in self.rest:
            if not poll.poll(self.proof.timeout * 1000):
                return None
            more = os.read(self.words, 65536)
            if not more:
                return None
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        word: dict[str, Any] = json.loads(line)
        return word

    def _why(self) -> str:
        return "its creator has died" if select.select([self.pidfd], [], [], 0)[0] else "it hangs"

    def _finish(self) -> None:
        """Ends the creator; its tasks end with it, or when they read the end of the pipe."""
        os.close(self.go)
        os.close(self.words)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.close(self.pidfd)
        if self.semaphore >= 0 and libc.semctl(self.semaphore, 0, 0):  # IPC_RMID
            raise OSError(ctypes.get_errno(), "semctl")

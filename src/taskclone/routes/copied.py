"""Copied memory: libc's fork, an outcome by pickle through a record that both sides map.

The plain case only: no flags. What else can be said without CLONE_VM needs other forms of the copy.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from taskclone._core import Record, copied_start
from taskclone.errors import TaskTerminated
from taskclone.flags import CloneFlags, flag_names
from taskclone.outcome import ExitStatus, Outcome, died, dump, exit_code_of, exit_message, load
from taskclone.plan import Plan, unsupported
from taskclone.routes.children import ChildHandle
from taskclone.task import Task

NAME = "copied"

FORK_FLAGS = int(CloneFlags.CHILD_SETTID | CloneFlags.CHILD_CLEARTID)
"""What glibc's fork passes to clone, besides SIGCHLD."""


def check(plan: Plan) -> None:
    if plan.bits:
        raise unsupported(NAME, f"{flag_names(plan.flag_set)} without VM in this version", "add VM, or leave them out")
    if plan.exit_signal not in (None, signal.SIGCHLD):
        raise unsupported(NAME, "an exit signal other than SIGCHLD, which is fork's", "add VM to the flags")
    if plan.stack_size is not None:
        raise unsupported(NAME, "stack_size: the stack is copied with the memory")
    if plan.setup.threads or plan.setup.core:
        raise unsupported(NAME, "ChildSetup(threads=, core=)", "they are about tasks that share memory (VM)")


class CopiedHandle(ChildHandle):
    """A forked child and the record that it leaves its outcome in."""

    __slots__ = ("_outcome", "record")

    def __init__(self, pid: int, pidfd: int, record: Record, daemon: bool) -> None:
        super().__init__(pid, pidfd, FORK_FLAGS, signal.SIGCHLD, daemon)
        self.record = record
        self._outcome: Outcome | None = None

    def status(self) -> ExitStatus | None:
        status = super().status()
        if status is not None and status.lost:
            # Reaped by somebody else on a kernel that keeps nothing: the task's own word, if it left one.
            left = self.record.load()
            if left is not None:
                self._status = status = ExitStatus(left[1], None, source="record")
        return status

    def outcome(self) -> Outcome:
        left = self.record.load()
        if left is None:
            self.record.check()
        status = self.status()
        assert status is not None, "outcome() before the end"
        if left is None:
            raise died(f"task {self.pid}", status)
        kind, payload = left[0], left[2]
        outcome = load(kind, payload)
        if outcome[0] == "exit":
            raise died(f"task {self.pid}", status, how=outcome[1])
        return outcome

    def abandon(self) -> None:
        super().abandon()
        self.record.close()


def start(plan: Plan, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[Any]:
    if threading.active_count() > 1:
        _warn_of_threads()
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    record = Record()
    pid, pidfd = copied_start(record, None if plan.name is None else os.fsencode(plan.name)[:15])
    if pid == 0:
        _run(record, fn, args, kwargs)
    return Task(CopiedHandle(pid, pidfd, record, plan.daemon), plan, NAME)


def _warn_of_threads() -> None:
    warnings.warn(
        f"process {os.getpid()} has other threads: the copy has none of them, but has their locks as they are, and may "
        "hang on one; flags=SHARED and flags=THREAD do not copy",
        DeprecationWarning,
        stacklevel=5,  # the caller of clone()
    )


def _flush(stream: Any) -> None:
    if stream is not None and not stream.closed:
        stream.flush()


# ---- in the task ------------------------------------------------------------------------------------------------------


def _on_terminate(number: int, frame: FrameType | None) -> None:
    raise TaskTerminated


def _run(record: Record, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> NoReturn:
    """The task from the fork to its end. Nothing may leave it: above are the creator's frames."""
    code = 255
    terminated = False
    try:
        outcome: Outcome
        try:
            signal.signal(signal.SIGTERM, _on_terminate)
            outcome = "value", fn(*args, **(kwargs or {}))
            code = 0
        except (SystemExit, KeyboardInterrupt) as stop:
            terminated = isinstance(stop, TaskTerminated)
            outcome, code = ("exit", exit_message(stop)), exit_code_of(stop)
        except BaseException as exception:
            outcome, code = ("exception", exception), 1
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the outcome is to be stored whole
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
        if not terminated:
            kind, payload = dump(outcome)
            record.store(kind, code, payload)
    except BaseException:
        code = 255
        sys.excepthook(*sys.exc_info())  # a broken stream, no room for the outcome: on stderr, and in the exit status
    finally:
        try:
            record.await_creator()
            if terminated:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os._exit(code)

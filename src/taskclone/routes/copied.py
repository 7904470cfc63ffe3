"""Copied memory: libc's fork, an outcome by pickle through a record that both sides map.

The plain case only: no flags. What else can be said without CLONE_VM needs other forms of the copy.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from taskclone._core import Child, Record, copied_start, flush_streams
from taskclone.errors import TaskTerminated
from taskclone.flags import CloneFlags, flag_names
from taskclone.outcome import NONE, ExitStatus, Outcome, died, dump, exit_code_of, exit_message, load
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
    if plan.setup.core:
        raise unsupported(NAME, "ChildSetup(core=True)", "it is about tasks that share memory (VM)")


_SIGTERM = int(signal.SIGTERM)
_NOTHING: Outcome = ("value", None)


class CopiedHandle(ChildHandle):
    """A forked child and the record that it leaves its outcome in."""

    __slots__ = ("record",)

    def __init__(self, record: Record, daemon: bool) -> None:
        super().__init__(Child(), FORK_FLAGS, daemon)
        self.record = record

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
        if left is not None and left[0] == NONE:
            return _NOTHING
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
    if _thread._count():  # besides the main thread
        _warn_of_threads()
    name = None if plan.name is None else os.fsencode(plan.name)
    flush_streams()
    # All that can be made before the fork is: what is written to while the child lives has to be copied first.
    record = Record()
    handle = CopiedHandle(record, plan.daemon)
    task: Task[Any] = Task(handle, plan, NAME)
    if not copied_start(record, handle.child, name):
        _run(record, fn, args, kwargs)
    handle.started()
    return task


def _warn_of_threads() -> None:
    warnings.warn(
        f"process {os.getpid()} has other threads: the copy has none of them, but has their locks as they are, and may "
        "hang on one; flags=SHARED and flags=THREAD do not copy",
        DeprecationWarning,
        stacklevel=5,  # the caller of clone()
    )


# ---- in the task ----------------------------------------------------------------------------------------------------


def _on_terminate(number: int, frame: FrameType | None) -> None:
    raise TaskTerminated


def _run(record: Record, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> NoReturn:
    """The task from the fork to its end. Nothing may leave it: above are the creator's frames.

    Written for few page faults: each page that it is the first to write to is copied. So signal.signal, whose enums
    cost 25 of them, is passed by, and None is not pickled.
    """
    code = 255
    terminated = False
    try:
        try:
            _signal.signal(_SIGTERM, _on_terminate)
            value = fn(*args, **kwargs) if kwargs else fn(*args)
            flush_streams()
            if value is None:
                record.store(NONE, 0, b"")
            else:
                record.store(*dump(("value", value), 0))
            code = 0
        except TaskTerminated:
            terminated = True
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not rise in the clean-up
            flush_streams()
        except BaseException as exception:
            code = _leave(record, exception)
    except BaseException:
        code = 255
        sys.excepthook(*sys.exc_info())  # a broken stream, no room for the outcome: on stderr, and in the exit status
    finally:
        try:
            if terminated:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os._exit(code)


def _leave(record: Record, exception: BaseException) -> int:
    """Leaves an exception as the outcome; the exit status that goes with it."""
    code = exit_code_of(exception)
    flush_streams()
    outcome: Outcome = ("exception", exception)
    if isinstance(exception, SystemExit | KeyboardInterrupt):
        outcome = "exit", exit_message(exception)
    record.store(*dump(outcome, code))
    return code

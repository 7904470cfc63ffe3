"""Copied memory: libc's fork, an outcome by pickle through a record that both sides map.

The plain case only: no flags. What else can be said without CLONE_VM needs other forms of the copy.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from taskclone._core import Copied, copied_hooks, copied_start, flush_streams
from taskclone.childsetup import ChildSetup
from taskclone.errors import TaskTerminated
from taskclone.flags import flag_names
from taskclone.outcome import ExitStatus, Outcome, died, dump, exit_code_of, exit_message, load
from taskclone.plan import Plan, unsupported
from taskclone.routes import setup
from taskclone.routes.children import ChildHandle
from taskclone.task import Task

NAME = "copied"


def check(plan: Plan) -> None:
    if plan.bits:
        raise unsupported(NAME, f"{flag_names(plan.flag_set)} without VM in this version", "add VM, or leave them out")
    if plan.exit_signal not in (None, signal.SIGCHLD):
        raise unsupported(NAME, "an exit signal other than SIGCHLD, which is fork's", "add VM to the flags")
    if plan.stack_size is not None:
        raise unsupported(NAME, "stack_size: the stack is copied with the memory")
    setup.require(NAME, plan)


class CopiedHandle(ChildHandle, Copied):
    """A forked child and the page that it leaves its outcome in."""

    __slots__ = ()

    def status(self) -> ExitStatus | None:
        status = super().status()
        if status is not None and status.lost:
            # Reaped by somebody else on a kernel that keeps nothing: the task's own word, if it left one.
            left = self.load()
            if left is not None:
                self.cached = status = ExitStatus(left[1], None, source="record")
        return status

    def unpack(self) -> Outcome:
        """The outcome, where it is not simply None."""
        left = self.load()
        if left is None:
            self.check()
        status = self.status()
        assert status is not None, "outcome() before the end"
        if left is None:
            raise died(f"task {self.pid}", status)
        kind, payload = left[0], left[2]
        outcome = load(kind, payload)
        if outcome[0] == "exit":
            raise died(f"task {self.pid}", status, how=outcome[1])
        return outcome


def start(plan: Plan, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[Any]:
    if _thread._count():  # besides the main thread
        _warn_of_threads()
    name = None if plan.name is None else os.fsencode(plan.name)
    if plan.has_setup:
        prepare = (
            functools.partial(_prepare, plan.setup)
            if plan.setup.signals or plan.setup.environment is not None
            else None
        )
        with setup.steps(plan) as (steps, captured):
            handle = copied_start(CopiedHandle, name, plan.daemon, fn, args, kwargs, steps, prepare)
        return setup.capturing(Task(handle, plan, NAME), captured)
    return Task(copied_start(CopiedHandle, name, plan.daemon, fn, args, kwargs), plan, NAME)


def _warn_of_threads() -> None:
    warnings.warn(
        f"process {os.getpid()} has other threads: the copy has none of them, but has their locks as they are, and may "
        "hang on one; flags=SHARED and flags=THREAD do not copy",
        DeprecationWarning,
        stacklevel=5,  # the caller of clone()
    )


# ---- in the task ----------------------------------------------------------------------------------------------------


def _prepare(wanted: ChildSetup) -> None:
    """What of a setup the interpreter has to know, after the core's steps: its table of handlers, and os.environ."""
    assert isinstance(wanted.signals, tuple)
    for number, how in wanted.signals:
        _signal.signal(number, _signal.SIG_IGN if how == "ignore" else _signal.SIG_DFL)
    if wanted.environment is not None:
        os.environ.clear()
        os.environb.update(wanted.environment)  # type: ignore[arg-type]


def _on_terminate(number: int, frame: FrameType | None) -> None:
    raise TaskTerminated


def _finish(task: CopiedHandle, value: object, error: BaseException | None) -> NoReturn:
    """The end of a body that did not just return None: leaves its outcome. Nothing may leave this function: above are
    the creator's frames."""
    code = 255
    terminated = False
    try:
        try:
            if isinstance(error, TaskTerminated):
                raise error
            if error is not None:
                code = _leave(task, error)
            else:
                flush_streams()
                task.store(*dump(("value", value), 0))
                code = 0
        except TaskTerminated:
            terminated = True
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not rise in the clean-up
            flush_streams()
        except BaseException as exception:
            code = _leave(task, exception)
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


def _leave(task: CopiedHandle, exception: BaseException) -> int:
    """Leaves an exception as the outcome; the exit status that goes with it."""
    code = exit_code_of(exception)
    flush_streams()
    outcome: Outcome = ("exception", exception)
    if isinstance(exception, SystemExit | KeyboardInterrupt):
        outcome = "exit", exit_message(exception)
    task.store(*dump(outcome, code))
    return code


# _signal's own function: the enums of signal.signal would be 25 more page faults in every task.
copied_hooks(_signal.signal, (int(signal.SIGTERM), _on_terminate), _finish, ("value", None))

"""Copied memory: libc's fork, an outcome by pickle through a record that both sides map.

The plain case only: no flags. What else can be said without CLONE_VM needs other forms of the copy.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import contextlib
import functools
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from taskclone._core import Copied, copied_hooks, copied_start, flush_streams, threads_running
from taskclone.childsetup import ChildSetup
from taskclone.errors import OutcomeError, TaskError, TaskTerminated
from taskclone.flags import flag_names
from taskclone.outcome import ExitStatus, Outcome, died, exit_code_of, exit_message
from taskclone.parcel import leave, take
from taskclone.plan import Plan, unsupported
from taskclone.routes import setup
from taskclone.routes.children import ChildHandle
from taskclone.task import Task

if TYPE_CHECKING:
    import threading

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
            left = self.left()
            if left is not None:
                self.cached = status = ExitStatus(left[1], None, source="record")
        return status

    def outcome(self) -> Outcome:
        self.status()  # which may ask for what is left
        try:
            outcome = self._take()
        except TaskError:
            self.close()
            raise
        self.close()  # not where the unpickling was interrupted: it is done again
        return outcome

    def _take(self) -> Outcome:
        left = self.left()
        if left is None:
            self.check()
        status = self.status()
        assert status is not None, "outcome() before the end"
        if left is None:
            raise died(f"task {self.pid}", status)
        try:
            payload, buffers = self.load()
        except OSError as error:
            raise OutcomeError(f"what task {self.pid} has left cannot be mapped: {error}") from error
        outcome = take(left[0], payload, [memoryview(buffer) for buffer in buffers])
        if outcome[0] == "exit":
            raise died(f"task {self.pid}", status, how=outcome[1])
        return outcome


def start(plan: Plan, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[Any]:
    if _thread._count() or threads_running():  # besides the main thread
        warn_of_threads()
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


own_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Threads of this package that hold no lock whenever another thread forks."""
_quiet: set[tuple[int, int]] = set()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The calling thread forks without a warning; for those who have given it at a better place."""
    me = os.getpid(), _thread.get_ident()  # the child of the fork is not quiet
    _quiet.add(me)
    try:
        yield
    finally:
        _quiet.discard(me)


def warn_of_threads() -> None:
    """A DeprecationWarning where the caller of this package has other threads: see the message."""
    if (os.getpid(), _thread.get_ident()) in _quiet:
        return
    if _thread._count() + threads_running() <= sum(thread.is_alive() for thread in own_threads):
        return
    if not threads_running() and len(sys._current_frames()) == 1:
        return  # a task of a process with threads: the count is that process's
    warnings.warn(
        f"process {os.getpid()} has other threads: the copy has none of them, but has their locks as they are, and may "
        "hang on one; flags=SHARED and flags=THREAD do not copy",
        DeprecationWarning,
        stacklevel=_level_of_the_caller(),
    )


def _level_of_the_caller() -> int:
    level, frame = 1, sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).split(".")[0] in ("taskclone", "concurrent"):
        level, frame = level + 1, frame.f_back
    return level


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
                code = leave(task, ("value", value), 0)
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
    return leave(task, outcome, code)


# _signal's own function: the enums of signal.signal would be 25 more page faults in every task.
copied_hooks(_signal.signal, (int(signal.SIGTERM), _on_terminate), _finish, ("value", None))

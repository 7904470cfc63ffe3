"""Copied memory: a function in a copy of this process, an outcome by pickle through a record that both sides map."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from taskclone._core import Copied, copied_hooks, copied_start, flush_streams, threads_running
from taskclone.errors import OutcomeError, TaskError, TaskTerminated
from taskclone.outcome import ExitStatus, Outcome, died, exit_code_of, exit_message
from taskclone.parcel import leave, take
from taskclone.plan import Plan
from taskclone.routes import copying, setup
from taskclone.routes.children import ChildHandle
from taskclone.task import Task

NAME = "copied"


def check(plan: Plan) -> None:
    copying.check(NAME, plan)


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
    # Few functions on the plain ways: in a program that copies itself each one is some page faults.
    name = None if plan.name is None else os.fsencode(plan.name)
    if plan.plain:
        if _thread._count() or threads_running():
            copying.look_at_threads(plan)
        return Task(copied_start(CopiedHandle, name, plan.daemon, fn, args, kwargs), plan, NAME)
    if plan.bare and not plan.has_setup and not plan.bits:
        handle = copied_start(CopiedHandle, name, plan.daemon, fn, args, kwargs, None, None, plan.how, plan.leave_out)
        return Task(handle, plan, NAME)
    with setup.steps(plan) as (steps, captured):
        harmless = copying.look_at_threads(plan)
        prepare = copying.prepare_of(plan)
        handle = copied_start(
            CopiedHandle, name, plan.daemon, fn, args, kwargs, steps, prepare, plan.how, plan.leave_out, harmless
        )
    return setup.capturing(Task(handle, plan, NAME), captured)


# ---- in the task ----------------------------------------------------------------------------------------------------


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
            terminated, code = True, 128 + signal.SIGTERM  # init of a PID namespace is deaf to a signal of its own
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

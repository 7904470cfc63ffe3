"""The call: a plan, something to run, and the route that carries it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload

from taskclone._core import shared_stats
from taskclone.childsetup import NOTHING, ChildSetup
from taskclone.errors import FlagError, UnsupportedOperation
from taskclone.flags import CloneFlags
from taskclone.plan import Plan, PlanFields, Program, as_argv, set_starter
from taskclone.routes import children, copied, forked, program, shared, thread
from taskclone.task import Task, check_timeout

__all__ = ["call", "clone", "fork", "stats"]

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_VM, _THREAD, _VFORK = int(CloneFlags.VM), int(CloneFlags.THREAD), int(CloneFlags.VFORK)
_interned: dict[Any, Plan] = {}
_INTERNED_LIMIT = 256
_FLAG_TYPES = (int, str, CloneFlags)


def _plan_for(flags: CloneFlags | int | str, plan_fields: PlanFields) -> Plan:
    if plan_fields:
        return Plan(flags, **plan_fields)
    # By type as well: True == 1, and 0 == CloneFlags(0).
    key = type(flags), flags
    try:
        plan = _interned.get(key)
    except TypeError:  # not hashable, so no flags: Plan says so
        return Plan(flags)
    if plan is None:
        plan = Plan(flags)
        if len(_interned) < _INTERNED_LIMIT:
            _interned[key] = plan
    return plan


def _route_for(plan: Plan, is_program: bool) -> Any:
    """The route's module; chosen and checked once for a plan."""
    route = plan.routes.get(is_program)
    if route is None:
        if is_program:
            route = program
        elif not plan.bits & _VM:
            route = copied
        else:
            route = thread if plan.bits & _THREAD else shared
        route.check(plan)
        plan.routes[is_program] = route
    return route


def check(plan: Plan) -> None:
    """Raises UnsupportedOperation for a plan by which no function can be started."""
    _route_for(plan, False)


def start(plan: Plan, body: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[Any]:
    """What Plan.start and clone come down to."""
    if callable(body):
        return _route_for(plan, False).start(plan, body, args, kwargs)  # type: ignore[no-any-return]
    argv = as_argv(body)
    return _route_for(plan, True).start(plan, argv, args, kwargs)  # type: ignore[no-any-return]


set_starter(start)


@overload
def clone(
    body: Callable[[*Ts], R],
    /,
    *args: *Ts,
    flags: CloneFlags | int | str = 0,
    **fields: Unpack[PlanFields],
) -> Task[R]: ...
@overload
def clone(body: Program, /, *, flags: CloneFlags | int | str = 0, **fields: Unpack[PlanFields]) -> Task[int]: ...
def clone(  # type: ignore[misc]  # mypy cannot match Unpack[Ts] with *args: Any
    body: Any, /, *args: Any, flags: CloneFlags | int | str = 0, **fields: Unpack[PlanFields]
) -> Task[Any]:
    """Starts a task that calls ``body(*args)`` or runs the program ``body``, and shares with it what ``flags`` say.

    Args:
        body: a callable, or a program's argv (a sequence of str or PathLike).
        args: positional arguments; ``functools.partial`` carries keywords.
        flags: PROCESS (0), SHARED, THREAD, or any other set: see ``taskclone.flags``.
        fields: the other fields of a ``Plan``.

    Returns:
        The Task. For plain flags it may return before the kernel's answer, which the first use of the Task then
        raises if it was a refusal.

    Raises:
        FlagError: the kernel refuses such a set; nothing was started.
        UnsupportedOperation: this version has no route for it.
        StartError: a system call or a step of the child's setup failed; the body never ran.
    """
    plan = None if fields else _interned.get((type(flags), flags)) if type(flags) in _FLAG_TYPES else None
    if plan is None:
        plan = _plan_for(flags, fields)
    # The same as start(plan, ...): in a copying program each function that is called is some page faults.
    route = plan.routes.get(False)
    if route is not None and callable(body):
        return route.start(plan, body, args, None)  # type: ignore[no-any-return]
    return start(plan, body, args, None)


def call(
    body: Any,
    /,
    *args: Any,
    timeout: float | None = None,
    flags: CloneFlags | int | str = 0,
    **fields: Unpack[PlanFields],
) -> Any:
    """Starts a task, waits for it, and returns its result or raises its exception.

    After ``timeout`` seconds the task is ended (killed; a thread, which cannot be, terminated) and TimeoutError is
    raised. The other arguments are those of ``clone``.

    Raises:
        FlagError: ``timeout`` with VFORK: the caller sleeps until such a task ends. SHARED does not.
    """
    check_timeout(timeout)
    plan = _plan_for(flags, fields)
    if timeout is not None and plan.bits & _VFORK and callable(body):
        import errno

        raise FlagError(
            errno.EINVAL,
            "a timeout cannot be kept with CLONE_VFORK: the caller sleeps in the kernel until the task ends; "
            "use flags=taskclone.SHARED, which costs no more",
            "timeout-needs-no-vfork",
        )
    task = start(plan, body, args, None)
    try:
        return task.result(timeout)
    except BaseException as error:
        if not task.done():
            end_task(task)
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"no result after {timeout:g} s: the task was ended ({task!r})") from None
        raise
    finally:
        if task.done() and plan.exit_signal and not plan.bits & _THREAD:
            task.wait()


def fork(flags: CloneFlags | int | str = 0, setup: ChildSetup | None = None) -> Task[int] | None:
    """Copies this process; both go on from the call, as with ``os.fork``, whose hooks and audit event it has.

    Where flags or a setup ask for it the copy shares, or has of its own, what they say. It does not go on before this
    process has its pidfd and its setup is done. The Tasks of this process are not its children: it cannot wait for
    them.

    Args:
        flags: a set without VM, THREAD and VFORK. With FILES, FS, SYSVSEM or IO no other thread may be alive, and
            pthread_atfork's handlers do not run: see ``bare`` of ``Plan``.
        setup: what is done in the copy before it goes on.

    Returns:
        None in the copy. Here a Task: its ``result()`` is the copy's exit code (TaskDied for a signal).

    Raises:
        FlagError: VM, THREAD or VFORK, or a set that the kernel refuses.
        UnsupportedOperation: a flag that copies cannot have, or other threads where none may be.
        StartError: a system call or a step of the setup failed; there is no copy.
    """
    plan = Plan(flags, setup=NOTHING if setup is None else setup)
    forked.check(plan)
    return forked.start(plan)


def end_task(task: Task[Any]) -> None:
    """Kills a task; a thread, which cannot be killed, is terminated."""
    try:
        task.kill()
    except UnsupportedOperation:
        task.terminate()


def stats() -> dict[str, int]:
    """Counts of hosts (threads that lend their storage to tasks) and of what deaths in shared memory left behind.

    ``abandoned_states``: thread states of crashed tasks, never freed: some 1 kB each, the dead's data-stack chunk of
    16 kB, and the touched part of the host's stack. ``malloc_deaths``: deaths that left an arena of malloc locked;
    at ``malloc_limit`` no more shared tasks are started.
    """
    return shared_stats()


atexit.register(children.end_all)

"""What every copy of this process has in common, whether it runs a function or goes on where it is."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import contextlib
import functools
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from taskclone._core import BARE, FORK, RELAY, fork_hooks, generation, keep_fork_hooks, threads_running
from taskclone.childsetup import ChildSetup
from taskclone.flags import CloneFlags, flag_names
from taskclone.forms import default_exit_signal
from taskclone.plan import Plan, unsupported
from taskclone.routes import setup
from taskclone.routes.ownthreads import Place, own_threads

if TYPE_CHECKING:
    import threading

    from taskclone._core import _How

__all__ = ["check", "look_at_threads", "prepare_of", "quiet", "warn_of_threads"]

_F = CloneFlags
_CARRIED = int(
    _F.FILES | _F.FS | _F.SYSVSEM | _F.IO | _F.VFORK | _F.PTRACE | _F.UNTRACED | _F.CLEAR_SIGHAND | _F.NNP | _F.PARENT
    | _F.INTO_CGROUP | _F.AUTOREAP | _F.PIDFD_AUTOKILL | _F.SETTLS | _F.PIDFD | _F.PARENT_SETTID | _F.CHILD_SETTID
    | _F.CHILD_CLEARTID | _F.NEWNS | _F.EMPTY_MNTNS | _F.NEWUTS | _F.NEWIPC | _F.NEWUSER | _F.NEWPID | _F.NEWNET
    | _F.NEWCGROUP | _F.NEWTIME
)  # fmt: skip
_CLEAR = int(_F.CLEAR_SIGHAND)
_FILES = int(_F.FILES)
_FORMS = {"fork": FORK, "relay": RELAY, "bare": BARE}


def check(route: str, plan: Plan) -> None:
    """Raises UnsupportedOperation for what no copy carries, and works out ``plan.how``."""
    if plan.bits & ~_CARRIED:
        raise unsupported(route, f"{flag_names(plan.bits & ~_CARRIED)} without VM in this version", "leave it out")
    form = plan.form
    if form != "bare" and plan.exit_signal not in (None, signal.SIGCHLD):
        raise unsupported(route, "an exit signal other than SIGCHLD, which is fork's", "say bare=True, or share memory")
    if plan.stack_size is not None:
        raise unsupported(route, "stack_size: the stack is copied with the memory")
    setup.require(route, plan)
    exit_signal = 0
    if form == "bare":
        exit_signal = default_exit_signal(form) if plan.exit_signal is None else plan.exit_signal
    how: _How = _FORMS[form], plan.bits, exit_signal, not plan.bare
    object.__setattr__(plan, "how", how)


def look_at_threads(plan: Plan) -> tuple[list[int], ...]:
    """Before a copy: the warning where there are others, which a bare copy does not give. It is refused by the core,
    which has to know the ids of those that do not matter; they are returned, in lists that change (``Place``)."""
    form, flags, _, careful = plan.how
    if flags & _FILES:
        keep_fork_hooks(list(filter(_keeps_descriptors, fork_hooks())))
    if form != BARE:
        if _thread._count() or threads_running():  # besides the main thread
            warn_of_threads()
        return ()
    return _harmless_threads() if careful else ()


# ---- other threads --------------------------------------------------------------------------------------------------

_MOMENT = 0.1
"""Seconds in foreign code for which a copy waits: mostly a future is told its result, and who waited for it submits the
next call before the thread is back."""
_quiet: set[tuple[int, int]] = set()


def _own_threads() -> list[threading.Thread]:
    """In one step: others may start one meanwhile."""
    return [thread for thread in (reference() for reference in own_threads.keyrefs()) if thread is not None]


def _others_of_ours() -> list[Place]:
    """Those of the other own threads, after a moment for them to come back to our code."""
    here = _thread.get_ident()
    known = ((thread, own_threads.get(thread)) for thread in _own_threads())
    others = [place for thread, place in known if place and thread.is_alive() and thread.ident != here]
    end = time.monotonic() + _MOMENT
    while (now := time.monotonic()) < end and any(not place.ids and now < place.left + _MOMENT for place in others):
        time.sleep(0.00005)
    return others


def _harmless_threads() -> tuple[list[int], ...]:
    return tuple(place.ids for place in _others_of_ours())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The calling thread forks without a warning; for those who have given it at a better place."""
    me = generation(), _thread.get_ident()  # the child of the fork is not quiet
    _quiet.add(me)
    try:
        yield
    finally:
        _quiet.discard(me)


def warn_of_threads() -> None:
    """A DeprecationWarning where the caller of this package has other threads: see the message."""
    if (generation(), _thread.get_ident()) in _quiet:
        return
    count = _thread._count() + threads_running()  # the main thread is not in it; the caller is, where it is another
    harmless = sum(bool(place.ids) for place in _others_of_ours())
    if count <= harmless + any(thread.ident == _thread.get_ident() for thread in _own_threads()):
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


# ---- what others do after a fork -------------------------------------------------------------------------------------


_KEPT = frozenset({"taskclone", "threading", "random", "logging", "concurrent"})
"""Packages whose hooks do nothing to a descriptor. (Not asyncio: its hook drops the event loop, which closes it.)"""


def _keeps_descriptors(hook: Callable[[], object]) -> bool:
    module = getattr(hook, "__module__", None) or type(getattr(hook, "__self__", None)).__module__
    return module.partition(".")[0] in _KEPT or module == "_thread"  # a lock's own method


# ---- in the copy ----------------------------------------------------------------------------------------------------


def prepare_of(plan: Plan) -> Callable[[], None] | None:
    """What the copy is to call after the core's steps, or None: its interpreter has to know what they have done."""
    cleared = bool(plan.bits & _CLEAR)
    if not cleared and not plan.setup.signals and plan.setup.environment is None:
        return None
    return functools.partial(_prepare, plan.setup, cleared)


def _prepare(wanted: ChildSetup, cleared: bool) -> None:
    """Brings the interpreter's table of handlers up to date, and os.environ."""
    # Refused in a bare copy that another thread than the main one has made: there no Python handler can run anyway.
    with contextlib.suppress(ValueError):
        if cleared:
            for handled in filter(lambda number: callable(_signal.getsignal(number)), signal.valid_signals()):
                _signal.signal(handled, _signal.SIG_DFL)
        assert isinstance(wanted.signals, tuple)
        for number, how in wanted.signals:
            _signal.signal(number, _signal.SIG_IGN if how == "ignore" else _signal.SIG_DFL)
    if wanted.environment is not None:
        os.environ.clear()
        os.environb.update(wanted.environment)  # type: ignore[arg-type]

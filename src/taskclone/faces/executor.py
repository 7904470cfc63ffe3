"""``concurrent.futures`` with a task for each call."""

from __future__ import annotations

import contextvars
import errno
import math
import os
import select
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent import futures
from time import monotonic as _now
from typing import Any, NamedTuple, ParamSpec, TypeVar

from taskclone._core import generation, in_task
from taskclone.errors import FlagError, StartError, UnsupportedOperation
from taskclone.flags import PROCESS, CloneFlags, flag_names
from taskclone.launch import check, end_task
from taskclone.plan import Plan
from taskclone.routes import copying
from taskclone.routes.ownthreads import Place, own_threads
from taskclone.task import Task, check_timeout

__all__ = ["Executor"]

P = ParamSpec("P")
R = TypeVar("R")

_LOOK_EVERY = 1.0
"""Seconds between looks at tasks that share memory: threads that a C library started in one can outlive its result,
and the pidfd is not readable before they have ended."""


class Executor(futures.Executor):
    """Runs each call in a task of its own: a crash or a timeout harms one future and nothing else.

    A future's exception is what ``Task.result()`` would raise (TaskDied for a crash, OutcomeError for a result that
    cannot be pickled), StartError when the call could not be started, and TimeoutError for one that was ended because
    it ran longer than ``timeout``. Functions, arguments and, where memory is shared, results need no pickling. Each
    call runs in a copy of the context (contextvars) in which it was submitted.

    Who starts the tasks matters where memory is copied: the copy has only the thread that forked, and whatever locks
    the others held. While fewer than ``max_workers`` calls run, ``submit`` starts the task itself, in the thread that
    calls it. Calls that had to wait are started by the executor's one thread when another call has ended. That thread
    mostly sleeps in poll(2), and holds no lock then: it is no danger to a copy and no reason for a warning. While it
    loads a result or runs a done-callback it may hold any, and is as other threads are: there is a warning, and a bare
    copy is refused. A copied task that it starts is the copy of a moment in which the thread that submitted may have
    been anywhere. If that thread holds locks which the calls need, or other threads run, submit
    no more than ``max_workers`` calls at a time, or share memory: with SHARED and THREAD none of this matters.

    With THREAD a call that does not react to its end (an exception that is raised in it) goes on beside the others;
    its future has the TimeoutError, and its place is free. A crash ends the process there, as it does in any thread.

    Args:
        max_workers: how many calls run at a time; ``os.cpu_count()`` where it is not given.
        flags: what the tasks share: PROCESS, SHARED, THREAD or another set that ``clone`` carries.
        timeout: seconds that a call may take from its start; then its task is ended, as ``call`` does it.

    Raises:
        FlagError: the kernel refuses the flags; or VFORK, with which the submitting thread would sleep.
        UnsupportedOperation: no route carries them.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        flags: CloneFlags | int | str = PROCESS,
        timeout: float | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = os.cpu_count() or 1
        if isinstance(max_workers, bool) or not isinstance(max_workers, int):
            raise TypeError(f"max_workers must be an int or None, not {type(max_workers).__name__}")
        if max_workers < 1:
            raise ValueError(f"max_workers must be at least 1, not {max_workers}")
        check_timeout(timeout)
        plan = Plan(flags)
        if plan.flag_set & CloneFlags.VFORK:
            raise FlagError(
                errno.EINVAL,
                "with CLONE_VFORK submit() would sleep in the kernel until the call has ended; leave VFORK out",
                "executor-needs-no-vfork",
            )
        check(plan)
        if not plan.bits & CloneFlags.VM and plan.form == "bare":
            raise UnsupportedOperation(
                f"{flag_names(plan.bits)} without VM makes bare copies, which are refused beside other threads, and an "
                "executor has one; share memory too, or leave these flags out"
            )
        self._pool = _Pool(max_workers, plan, timeout)
        # Without a last word of its user the executor ends when it is collected, after the calls that it has.
        self._forgotten = weakref.finalize(self, self._pool.close)
        self._forgotten.atexit = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[R]:
        """Schedules ``fn(*args, **kwargs)`` and returns its future, without waiting for a free place.

        Raises:
            RuntimeError: after ``shutdown``, at the interpreter's exit, or in a process that inherited the executor.
        """
        if not callable(fn):
            raise TypeError(f"an executor calls functions, not a {type(fn).__name__}")
        return self._pool.submit(_Call(futures.Future(), contextvars.copy_context(), fn, args, kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls are taken; those that were are carried out, unless ``cancel_futures`` drops the ones that have
        not begun. With ``wait`` it returns when all have ended."""
        self._pool.close(cancel_futures)
        if wait:
            self._pool.join()


def _here() -> tuple[int, int, bool]:
    """Of the caller's process, in which it differs from its copies and from tasks that share its memory. Not the id
    alone: in a PID namespace of its own either has the id 1, as its creator may have."""
    return generation(), os.getpid(), in_task()


class _Call(NamedTuple):
    future: futures.Future[Any]
    context: contextvars.Context
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Begun(NamedTuple):
    future: futures.Future[Any]
    task: Task[Any] | BaseException
    """Or why there is none."""
    deadline: float


class _Pool:
    """The state of an executor and its thread. Apart from it, so that the thread keeps no forgotten executor alive."""

    def __init__(self, max_workers: int, plan: Plan, timeout: float | None) -> None:
        self._max_workers = max_workers
        self._plan = plan
        self._timeout = timeout
        self._copies = not plan.bits & CloneFlags.VM
        self._lingers = bool(plan.bits & CloneFlags.VM) and not plan.bits & CloneFlags.THREAD
        self._owner = os.getpid()
        self._here = _here()
        # Reentrant: a finalizer that submits may run in the middle of a start. Held during each fork, see Executor.
        self._lock = threading.RLock()
        self._queue: deque[_Call] = deque()
        self._begun: list[_Begun] = []  # not yet looked after by the thread
        self._busy = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        self._finished = threading.Event()
        self._bell = -1
        # The thread's own:
        self._place = Place()
        self._poll = select.poll()
        self._by_fd: dict[int, _Begun] = {}  # in the order of their starts, and so of their deadlines
        self._enders: list[threading.Thread] = []

    # ---- by any thread ----

    def submit(self, call: _Call) -> futures.Future[Any]:
        if _here() != self._here:  # before the lock, which a fork may have left locked
            raise RuntimeError(f"this executor belongs to process {self._owner}: a task or a fork cannot submit to it")
        if self._copies:
            copying.warn_of_threads()
        with self._lock:
            if self._closed or _exiting:
                when = "at the interpreter's exit" if _exiting else "after shutdown"
                raise RuntimeError(f"the executor takes no calls {when}")
            if self._thread is None:
                self._open()
            if self._queue or self._busy >= self._max_workers:
                self._queue.append(call)
            else:
                self._start(call)
                self._ring()
        return call.future

    def _open(self) -> None:
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._bell, select.POLLIN)
        try:
            thread = threading.Thread(target=self._run, name="taskclone executor")
            own_threads[thread] = self._place
            thread.start()
        except RuntimeError:
            os.close(self._bell)
            raise
        self._thread = thread
        assert thread.native_id is not None
        self._place.ids.append(thread.native_id)  # it waits for the lock
        _pools.add(self)

    def _ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def close(self, cancel: bool = False) -> None:
        if _here() != self._here:
            return
        with self._lock:
            self._closed = True
            dropped = list(self._queue) if cancel else []
            if cancel:
                self._queue.clear()
            if self._thread is not None and not self._finished.is_set():
                self._ring()
        for call in dropped:
            if call.future.cancel():
                call.future.set_running_or_notify_cancel()  # tells those who wait for several futures

    def join(self) -> None:
        thread = self._thread
        if _here() != self._here or thread is None or thread is threading.current_thread():
            return
        self._finished.wait()  # not join() alone: on 3.11 one that Ctrl-C interrupts takes the thread for ended
        thread.join()

    def _start(self, call: _Call) -> None:
        """Under the lock. Whatever goes wrong is the future's, and is told it by the thread."""
        if not call.future.set_running_or_notify_cancel():
            return
        task: Task[Any] | BaseException
        with copying.quiet():  # submit() has warned
            try:
                task = call.context.run(self._plan.start, call.fn, *call.args, **call.kwargs)
            except BaseException as error:
                task = error
        self._busy += 1
        self._begun.append(_Begun(call.future, task, math.inf if self._timeout is None else _now() + self._timeout))
        del task  # an exception's traceback holds this frame

    # ---- the thread ----

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            for thread in self._enders:
                thread.join()
        finally:
            with self._lock:
                self._finished.set()
                os.close(self._bell)
            _pools.discard(self)

    def _turn(self) -> bool:
        """Starts what there is room for, waits for something to happen, and sees to it. False: that was all."""
        with self._lock:
            while self._queue and self._busy < self._max_workers:
                self._start(self._queue.popleft())
            begun, self._begun = self._begun, []
            if self._closed and not (self._queue or self._busy):
                return False
        for one in begun:
            self._watch(one)
        if begun:
            return True  # some of them may have ended in the meantime, and made room
        for fd, _ in self._poll.poll(self._patience()):
            if fd == self._bell:
                os.eventfd_read(fd)
            else:
                self._ended(fd)
        for fd, one in list(self._by_fd.items()) if self._lingers else ():
            if self._is_done(one):
                self._ended(fd)
        for fd, one in list(self._by_fd.items()):
            if one.deadline > _now():
                break
            # Asked once more: what came before it here may have taken long, a future's callback say.
            if any(seen == fd for seen, _ in self._poll.poll(0)) or (self._lingers and self._is_done(one)):
                self._ended(fd)
            else:
                self._end(self._forget(fd), None)
        return True

    def _patience(self) -> float | None:
        """Milliseconds."""
        if not self._by_fd:
            return None
        left = next(iter(self._by_fd.values())).deadline - _now()
        left = min(left, _LOOK_EVERY) if self._lingers else left
        return None if left == math.inf else max(0.0, left) * 1000

    def _is_done(self, one: _Begun) -> bool:
        return isinstance(one.task, Task) and one.task.done()

    def _watch(self, one: _Begun) -> None:
        if isinstance(one.task, BaseException):
            self._settle(one, one.task)
            return
        try:
            fd = one.task.fileno()
        except ValueError:  # somebody else has reaped it
            self._settle(one, None)
        except StartError as error:
            self._settle(one, error)
        except (OSError, UnsupportedOperation) as error:  # no descriptor to be had: nobody could see its end
            self._end(one, error)
        else:
            self._by_fd[fd] = one
            self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int) -> _Begun:
        self._poll.unregister(fd)
        return self._by_fd.pop(fd)

    def _ended(self, fd: int) -> None:
        self._settle(self._forget(fd), None)

    def _settle(self, one: _Begun, error: BaseException | None) -> None:
        """Gives the future what the task has left, or an error."""
        value = None
        with self._place.foreign():  # a result may be of a type that does something when it is unpickled
            if error is None:
                assert isinstance(one.task, Task)
                try:
                    # Not result(0): the news of a crash comes a moment before its host has seen to it.
                    error = one.task.exception()
                    value = one.task.result() if error is None else None
                except BaseException as unexpected:
                    error = unexpected
            with self._lock:
                self._busy -= 1  # first: who has seen the future may submit
            _tell(one.future, value, error)
            del error, value  # the error's traceback may hold this frame

    def _end(self, one: _Begun, error: BaseException | None) -> None:
        """On a thread of its own: a task that shares memory takes its time, and the others shall not wait."""
        task, place = one.task, Place()
        assert isinstance(task, Task)

        def end() -> None:
            nonlocal error
            if self._copies:  # the end of one that shares memory looks after locks of others
                place.ids.append(threading.get_native_id())
            try:
                end_task(task)
                error = error or TimeoutError(f"no result after {self._timeout:g} s: the task was ended ({task!r})")
            except BaseException as failure:  # TimeoutError, when it could not be ended: says where it is stuck
                error = failure
            with place.foreign():
                _tell(one.future, None, error)
            with self._lock:
                self._busy -= 1
                self._ring()

        self._enders = [thread for thread in self._enders if thread.is_alive()]
        try:
            ender = threading.Thread(target=end, name="taskclone executor: end")
            own_threads[ender] = place
            ender.start()
        except RuntimeError:  # 3.12 starts no thread once the interpreter's exit has begun
            with self._place.foreign():
                end()
        else:
            self._enders.append(ender)


def _tell(future: futures.Future[Any], value: object, error: BaseException | None) -> None:
    try:
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
    except BaseException:  # a callback that raises what is no Exception; the other calls are not to suffer
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


# ---- the interpreter's exit -----------------------------------------------------------------------------------------

_pools: set[_Pool] = set()
_exiting = False


def _at_exit() -> None:
    """The calls that were taken are carried out, as by the stdlib's executors."""
    global _exiting
    _exiting = True
    pools = list(_pools)
    for pool in pools:
        pool.close()
    for pool in pools:
        pool.join()


# Not atexit: that comes after the interpreter has joined all threads. The stdlib's executors use it, too.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]

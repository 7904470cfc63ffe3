"""Tasks in reference cycles: the collector takes them with their handles, and never what a running body needs."""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from loops import EVERY, MORTAL, SHARING
from proc import descriptors, no_descriptors_left, pipe, until
from taskclone import SHARED, THREAD, CloneFlags, Plan, StartError, Task, clone
from taskclone._core import shared_start
from taskclone.errors import TaskTerminated
from taskclone.routes.shared import SharedHandle

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags


class Holder:
    """What is in a cycle with a task."""

    task: Task[Any]


class Failure(Exception):
    holder: Holder


def fail() -> NoReturn:
    raise Failure


def assert_collected(make: Callable[[], object]) -> None:
    """What ``make`` returns is gone after a collection, and every descriptor that it had with it."""
    before = descriptors()
    gc.disable()  # not before we look
    try:
        gone = weakref.ref(make())
        assert gone() is not None, "it is in a cycle"
        gc.collect()
        assert gone() is None
    finally:
        gc.enable()
    assert descriptors() == before


def ended_and_on_its_exception(task: Task[Any]) -> Task[Any]:
    error: Any = task.exception()
    error.task = task
    task.wait()
    return task


@EVERY
def test_a_task_on_its_own_exception(flags: F) -> None:
    def make() -> Task[Any]:
        task = ended_and_on_its_exception(clone(fail, flags=flags))
        task.fileno()
        return task

    assert_collected(make)


@EVERY
def test_a_task_in_a_frame_of_its_exceptions_traceback(flags: F) -> None:
    def make() -> Task[Any]:
        task = clone(fail, flags=flags)
        try:
            task.result()
        except Failure as error:
            kept = error
        assert kept.__traceback__ is not None
        task.wait()
        return task

    assert_collected(make)


@MORTAL
def test_a_task_on_its_own_death(flags: F) -> None:
    def make() -> Task[Any]:
        return ended_and_on_its_exception(clone(os._exit, 3, flags=flags))

    assert_collected(make)


@EVERY
def test_a_task_that_is_part_of_its_value(flags: F) -> None:
    def make() -> Task[Any]:
        task = clone(list, flags=flags)
        task.result().append(task)
        task.wait()
        return task

    assert_collected(make)


def test_an_outcome_that_nobody_has_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only way from the handle to the exception is the core's record."""

    def make(flags: F) -> Holder:
        holder = Holder()

        def body() -> NoReturn:
            error = Failure()
            error.holder = holder
            raise error

        holder.task = clone(body, flags=flags)
        holder.task.wait()
        return holder

    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type.__name__))
    for flags in (SHARED, SHARED | F.VFORK, THREAD, THREAD | F.IO):
        assert_collected(lambda flags=flags: make(flags))  # type: ignore[misc]
    assert told == ["Failure"] * 2, "each thread's, once"


def test_what_a_body_had_when_it_died() -> None:
    """It has left its function and arguments in the record."""

    def make(flags: F) -> Holder:
        holder = Holder()
        body = functools.partial(os.abort)  # no Python frame that would keep it
        body.holder = holder  # type: ignore[attr-defined]
        holder.task = clone(body, flags=flags)
        holder.task.wait()
        return holder

    for flags in (SHARED, SHARED | F.VFORK):
        assert_collected(lambda flags=flags: make(flags))  # type: ignore[misc]


def test_what_a_body_had_that_never_began() -> None:
    def make() -> Holder:
        holder = Holder()
        body = functools.partial(print, holder)
        with no_descriptors_left():
            core = shared_start(body, (), None, int(SHARED | F.PIDFD), 0, 0, None, False, TaskTerminated, False)
            until(lambda: core.state == 3, "the refusal")
        holder.task = Task(SharedHandle(core), Plan(SHARED), "shared")
        return holder

    assert_collected(make)
    holder = make()
    with pytest.raises(StartError):
        holder.task.result()


@SHARING
def test_a_collection_leaves_a_running_body_its_own(flags: F) -> None:
    """Nothing but the body's own cycle refers to the task, its function and its arguments."""
    with pipe() as (read_end, write_end), pipe() as (to_body, go):
        gone: list[weakref.ref[Any]] = []

        def start() -> None:
            holder = Holder()

            def body(mine: list[Any], **more: Any) -> None:
                os.read(to_body, 1)
                mine.append(more["other"])
                mine.append(holder)
                os.write(write_end, b"%d" % len(mine))

            holder.task = Plan(flags, daemon=True).start(body, [holder], other=[holder])
            gone.append(weakref.ref(holder))

        start()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a Task that is forgotten while it runs says so
            for _ in range(20):
                gc.collect()
        assert gone[0]() is not None
        os.write(go, b"x")
        assert os.read(read_end, 10) == b"3"

        def collected() -> bool:
            gc.collect()
            return gone[0]() is None

        until(collected, "the cycle is collected after the end")


def test_collections_beside_running_bodies() -> None:
    """The collector looks at records while their bodies end."""
    deadline = time.monotonic() + 2
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        while time.monotonic() < deadline:
            holders = []
            for flags in (SHARED, THREAD, SHARED, THREAD):
                holder = Holder()
                holder.task = clone(lambda one: [one, [one]], holder, flags=flags)
                holders.append(holder)
            for holder in holders:
                gc.collect(0)
                first, second = holder.task.result(10)
                assert first is second[0] is holder
                gc.collect(1)
            del holders, holder, first, second
    finally:
        sys.setswitchinterval(interval)
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Holder)]

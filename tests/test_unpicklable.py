"""What cannot be pickled, or not be unpickled, is named by its path."""

from __future__ import annotations

import copyreg
import functools
import sys
import threading
import types
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import pytest

from taskclone import OutcomeError, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

LOCK = threading.Lock()


@dataclass
class Data:
    lock: Any


class Slots:
    __slots__ = ("__hidden", "empty", "open")

    def __init__(self, value: object) -> None:
        self.open = 1
        self.__hidden = value


class Reduced:
    """Its pickle holds a lock that it does not have itself."""

    def __init__(self) -> None:
        self.fine = Data(1)

    def __reduce__(self) -> Any:
        return Reduced, (self.fine, threading.Lock())


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle either")


def own_cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    cycle.append({"x": (1, LOCK)})
    return cycle


A_LOCK = r"is a _thread.lock \(TypeError: cannot pickle '_thread.lock' object\)"
CASES = [
    (LOCK, f"result {A_LOCK}"),
    ({"a": [1, 2, 3, LOCK]}, rf"result\['a'\]\[3\] {A_LOCK}"),
    (defaultdict(list, {(1, 2): deque([LOCK])}), rf"result\[\(1, 2\)\]\[0\] {A_LOCK}"),
    (Data([Slots(LOCK)]), rf"result\.lock\[0\]\._Slots__hidden {A_LOCK}"),
    ([Reduced()], r"result\[0\] is a .*Reduced"),
    ([0, Silent()], r"result\[1\] is a .*Silent .*no pickle either"),
    ({Slots: lambda: 1}, r"result\[<class .*Slots'>\] is the function .*<lambda>"),
    ({(1, LOCK): 1}, rf"result\.key\(.*\)\[1\] {A_LOCK}"),
    ({LOCK}, rf"result\.element\(.*\) {A_LOCK}"),
    (functools.partial(print, 1, end=LOCK), rf"result\.keywords\['end'\] {A_LOCK}"),
    (own_cycle(), rf"result\[1\]\['x'\]\[1\] {A_LOCK}"),
    (ValueError(1, LOCK), rf"result\.args\[1\] {A_LOCK}"),
    ([*range(200_000), LOCK], rf"result\[200000\] {A_LOCK}"),
    (sys, r"result is a module"),
]


@pytest.mark.parametrize(("value", "words"), CASES, ids=range(len(CASES)))
def test_what_cannot_be_pickled_is_named_by_its_path(value: object, words: str) -> None:
    task = clone(lambda: value)
    with pytest.raises(OutcomeError, match=f"^the result cannot be pickled: {words}"):
        task.result(20)
    assert task.wait().code == 1
    assert call(abs, -1) == 1


def test_nesting_that_is_too_deep_gives_a_short_message() -> None:
    nested: list[Any] = []
    for _ in range(1_000_000):  # some 100,000 are pickled from Python 3.14 on
        nested = [nested]
    with pytest.raises(OutcomeError, match=r"result(\[0\])+.* \.\.\. .*RecursionError") as caught:
        call(lambda: nested)
    assert len(str(caught.value)) < 500
    while nested:  # else its end would be a recursion as well
        nested = nested.pop()


def test_the_cause_is_kept_where_it_is_the_bodys_own_code() -> None:
    with pytest.raises(OutcomeError) as caught:
        call(lambda: Silent())
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(OutcomeError) as caught:
        call(lambda: LOCK)
    assert caught.value.__cause__ is None


# ---- the other way --------------------------------------------------------------------------------------------------


def refuse(*args: object) -> object:
    raise LookupError("not here")


class OneWay:
    def __reduce__(self) -> Any:
        return refuse, (1,)


class BadState:
    def __init__(self) -> None:
        self.x = 1

    def __setstate__(self, state: object) -> None:
        raise LookupError("no state")


class BadNew:
    def __new__(cls, *args: object) -> Any:
        if not args:
            raise LookupError("needs one")
        return super().__new__(cls)

    def __init__(self, one: object) -> None:
        pass

    def __reduce__(self) -> Any:
        return copyreg.__newobj__, (BadNew,)  # type: ignore[attr-defined]


def class_of_the_task() -> Any:
    module = types.ModuleType("module_of_the_task")
    sys.modules[module.__name__] = module
    exec("class Thing: pass", module.__dict__)
    return {"t": [module.Thing()]}


BACK = [
    (lambda: {"a": [1, OneWay()]}, r"result\['a'\]\[1\] is made by the function .*refuse \(LookupError: .*not here"),
    (lambda: (1, {"k": BadState()}), r"result\[1\]\['k'\] is a .*BadState, whose state cannot be set .*no state"),
    (lambda: [BadNew(1)] * 3, r"result\[0\] is made by the class .*BadNew .*needs one"),
    (lambda: Data(OneWay()), r"result\.lock is made by"),
    (class_of_the_task, r"result\['t'\]\[0\] needs module_of_the_task.Thing, .*ModuleNotFoundError"),
]


@pytest.mark.parametrize(("body", "words"), BACK, ids=range(len(BACK)))
def test_what_cannot_be_unpickled_is_named_by_its_path(body: Any, words: str) -> None:
    task = clone(body)
    with pytest.raises(OutcomeError, match=f"^the result cannot be unpickled: {words}"):
        task.result(20)
    assert isinstance(task.exception(), OutcomeError), "and is the same when asked again"
    assert task.wait().code == 0

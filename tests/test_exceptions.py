"""Exceptions of a body, raised in the creator: on every route the same."""

from __future__ import annotations

import errno
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, FlagError, OutcomeError, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

EVERY = pytest.mark.parametrize(
    "flags",
    [PROCESS, SHARED, SHARED | CloneFlags.VFORK, THREAD],
    ids=["PROCESS", "SHARED", "in_place", "THREAD"],
)


class Odd(Exception):
    pass


def raises_odd() -> None:
    error = Odd("a", 2)
    error.add_note("a note")
    raise error from KeyError("why")  # this line


@EVERY
def test_an_exception_keeps_type_arguments_notes_and_cause(flags: CloneFlags) -> None:
    task = clone(raises_odd, flags=flags)
    with pytest.raises(Odd) as caught:
        task.result(10)
    error = caught.value
    assert error.args == ("a", 2)
    assert error.__notes__ == ["a note"]
    assert isinstance(error.__cause__, KeyError)
    assert error.__cause__.args == ("why",)
    assert task.exception() is error
    assert task.wait().code == 1 or flags == THREAD


@EVERY
def test_an_exceptions_text_names_the_line_in_the_body(flags: CloneFlags) -> None:
    error = clone(raises_odd, flags=flags).exception(10)
    assert error is not None
    text = "".join(traceback.format_exception(error))
    assert 'raise error from KeyError("why")  # this line' in text
    assert "in raises_odd" in text
    assert "KeyError: 'why'" in text


@EVERY
def test_the_traceback_leads_to_the_line_in_the_body(flags: CloneFlags) -> None:
    error = clone(raises_odd, flags=flags).exception(10)
    assert error is not None
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.name, last.line) == ("raises_odd", 'raise error from KeyError("why")  # this line')
    assert last.filename == __file__
    assert last.colno == 4


@EVERY
def test_an_exception_is_the_same_every_time_and_its_traceback_does_not_grow(flags: CloneFlags) -> None:
    task = clone(raises_odd, flags=flags)
    lengths = []
    for _ in range(3):
        with pytest.raises(Odd) as caught:
            task.result(10)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert lengths[0] == lengths[1] == lengths[2]


# ---- what hangs on an exception -------------------------------------------------------------------------------------


def raise_with_context() -> NoReturn:
    try:
        raise KeyError("first")
    except KeyError as error:
        error.add_note("of the first")
        raise ValueError("second")  # noqa: B904  # the context is what is tested


def raise_from_none() -> NoReturn:
    try:
        raise KeyError("first")
    except KeyError:
        raise ValueError("second") from None


def raise_group() -> NoReturn:
    members: list[Exception] = []
    for body in (raise_with_context, raises_odd):
        try:
            body()
        except Exception as error:
            members.append(error)
    group = ExceptionGroup("two", [members[0], ExceptionGroup("inner", [members[1]])])
    group.add_note("of the group")
    raise group


def raise_in_a_circle() -> NoReturn:
    first, second = ValueError(1), ValueError(2)
    first.__context__, second.__context__ = second, first
    raise first


def raise_a_long_chain() -> NoReturn:
    error = ValueError(0)
    for number in range(1, 3000):
        following = ValueError(number)
        following.__context__ = error
        error = following
    raise error


def error_of(body: Callable[[], object], flags: CloneFlags = PROCESS) -> Any:
    error = clone(body, flags=flags).exception(20)
    assert error is not None
    return error


def names(error: BaseException | None) -> list[str]:
    assert error is not None
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


@EVERY
def test_a_context_and_its_notes(flags: CloneFlags) -> None:
    error = error_of(raise_with_context, flags)
    assert isinstance(error.__context__, KeyError)
    assert error.__context__.__notes__ == ["of the first"]
    assert error.__cause__ is None
    assert not error.__suppress_context__
    assert names(error.__context__) == ["raise_with_context"]
    hidden = error_of(raise_from_none, flags)
    assert hidden.__suppress_context__
    assert isinstance(hidden.__context__, KeyError)


@EVERY
def test_a_group_and_what_hangs_on_its_members(flags: CloneFlags) -> None:
    group = error_of(raise_group, flags)
    assert isinstance(group, ExceptionGroup)
    assert group.__notes__ == ["of the group"]
    first, inner = group.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert isinstance(first.__context__, KeyError)
    assert isinstance(inner.exceptions[0].__cause__, KeyError)
    assert inner.exceptions[0].__notes__ == ["a note"]
    assert names(inner.exceptions[0]) == ["raise_group", "raises_odd"]


@EVERY
def test_exceptions_in_a_circle(flags: CloneFlags) -> None:
    error = error_of(raise_in_a_circle, flags)
    assert error.__context__.__context__ is error
    assert (error.args, error.__context__.args) == ((1,), (2,))


def test_a_long_chain() -> None:
    error, length = error_of(raise_a_long_chain), 0
    while error is not None:
        error, length = error.__context__, length + 1
    assert length == 3000


def test_a_deep_traceback() -> None:
    def deeper(depth: int) -> NoReturn:
        if depth:
            deeper(depth - 1)
        raise ValueError

    assert names(error_of(lambda: deeper(500))).count("deeper") == 501


def test_the_frames_of_a_rebuilt_traceback_hold_nothing() -> None:
    trace = error_of(raises_odd).__traceback__
    while trace is not None:
        assert trace.tb_frame.f_back is None
        assert trace.tb_frame.f_locals == {}
        trace = trace.tb_next


class LostNotes(FlagError):
    """As FlagError: a pickle without the notes."""


def raise_lost_notes() -> NoReturn:
    error = LostNotes(errno.EPERM, "text", "rule")
    error.add_note("kept")
    raise error


def test_notes_that_a_pickle_drops_and_attributes() -> None:
    error = error_of(raise_lost_notes)
    assert (error.errno, error.strerror, error.rule, error.__notes__) == (errno.EPERM, "text", "rule", ["kept"])


# ---- what cannot come out -------------------------------------------------------------------------------------------


class HasLock(Exception):
    def __init__(self) -> None:
        super().__init__("text")
        self.lock = threading.Lock()


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raise_has_lock() -> NoReturn:
    raise HasLock


def raise_over_has_lock() -> NoReturn:
    try:
        raise_has_lock()
    except HasLock as error:
        raise ValueError("above") from error


def raise_group_with_has_lock() -> NoReturn:
    raise ExceptionGroup("some", [ValueError("good"), HasLock()])


def test_an_exception_that_cannot_be_pickled_is_named_by_path_and_keeps_its_lines() -> None:
    error = error_of(raise_has_lock)
    assert isinstance(error, OutcomeError)
    assert "exception HasLock('text') cannot be pickled: exception.lock is a _thread.lock" in str(error)
    assert names(error) == ["raise_has_lock"]


def test_one_that_cannot_be_pickled_does_not_harm_those_that_hang_on_it() -> None:
    error = error_of(raise_over_has_lock)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, OutcomeError)
    assert names(error.__cause__) == ["raise_over_has_lock", "raise_has_lock"]
    group = error_of(raise_group_with_has_lock)
    assert [type(member) for member in group.exceptions] == [ValueError, OutcomeError]


def raise_mute() -> NoReturn:
    raise Mute(1)


@EVERY
def test_an_exception_without_a_text(flags: CloneFlags) -> None:
    error = error_of(raise_mute, flags)
    assert isinstance(error, Mute)
    assert error.args == (1,)


def refuse() -> NoReturn:
    raise LookupError("not here")


class OneWay(Exception):
    def __reduce__(self) -> Any:
        return refuse, ()


def raise_one_way() -> NoReturn:
    try:
        raise OneWay("text")
    except OneWay as error:
        raise ValueError("above") from error


def test_an_exception_that_cannot_be_unpickled() -> None:
    error = error_of(raise_one_way)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, OutcomeError)
    assert "exception is made by the function" in str(error.__cause__)
    assert "not here" in str(error.__cause__)

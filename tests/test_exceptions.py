"""Exceptions of a body, raised in the creator: on every route the same."""

from __future__ import annotations

import traceback

import pytest

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, clone

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
    assert error.__notes__[0] == "a note"
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
def test_an_exception_is_the_same_every_time_and_its_traceback_does_not_grow(flags: CloneFlags) -> None:
    task = clone(raises_odd, flags=flags)
    lengths = []
    for _ in range(3):
        with pytest.raises(Odd) as caught:
            task.result(10)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert lengths[0] == lengths[1] == lengths[2]

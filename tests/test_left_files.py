"""Files that a body leaves open where it shares memory and not the descriptor table."""

from __future__ import annotations

import gc
import io
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copyforms import IN_NAMESPACES
from proc import pipe
from taskclone import THREAD, CloneFlags, call, clone

F = CloneFlags
pytestmark = pytest.mark.usefixtures("nothing_left")
APART = pytest.mark.parametrize(
    "flags",
    [F.VM, F.VM | F.VFORK, F.VM | F.SIGHAND | F.FS, THREAD & ~F.FILES],
    ids=["VM", "in place", "VM|SIGHAND|FS", "THREAD"],
)


def warned(fn: Callable[[], Any], flags: F) -> tuple[Any, str]:
    """The result, and what the one warning says; "" for none."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        result = call(fn, flags=flags)
    assert len(said) < 2
    return result, str(said[0].message) if said else ""


@APART
def test_a_file_is_closed_in_the_task_and_its_number_stays_the_creators(flags: F, tmp_path: Path) -> None:
    kept: list[Any] = []

    def body() -> int:
        kept.append(open(tmp_path / "text", "w"))  # noqa: SIM115 - it is the test
        kept[0].write("not flushed")
        return kept[0].fileno()  # type: ignore[no-any-return]

    number, said = warned(body, flags)
    assert "left open, in a descriptor table of its own" in said
    assert f"name='{tmp_path}/text'" in said
    assert f"(descriptor {number})" in said
    assert kept[0].closed
    assert (tmp_path / "text").read_text() == "not flushed"
    mine = os.open(os.devnull, os.O_RDONLY)
    assert mine == number
    kept.clear()
    gc.collect()
    os.fstat(mine)
    os.close(mine)


class Closes(io.FileIO):
    def close(self) -> None:
        super().close()
        raise LookupError("its own")

    def __repr__(self) -> str:
        raise LookupError("its own")


class DoesNotTell(io.FileIO):
    def fileno(self) -> int:
        raise LookupError("its own")


@APART
def test_what_a_derived_class_raises_does_not_become_the_outcome(flags: F) -> None:
    kept: list[Any] = []

    def body() -> int:
        kept.append(Closes(os.devnull))
        return 7

    result, said = warned(body, flags)
    assert result == 7
    assert "a Closes (descriptor " in said
    assert "not all of it was written: its own" in said
    assert kept[0].closed


@APART
def test_one_whose_number_cannot_be_asked_for_is_passed_over(flags: F) -> None:
    def body() -> str:
        kept.append(DoesNotTell(os.devnull))
        kept[0].close()
        os.open(os.devnull, os.O_RDONLY)  # so that there is a search at all
        return "mine"

    kept: list[Any] = []
    assert warned(body, flags) == ("mine", "")


@APART
def test_a_socket_is_let_go_of(flags: F) -> None:
    kept: list[socket.socket] = []
    _, said = warned(lambda: kept.extend(socket.socketpair()), flags)
    assert said.count("socket.socket") == 2
    assert [one.fileno() for one in kept] == [-1, -1]


@APART
def test_a_file_that_is_the_result_or_in_an_exception(flags: F) -> None:
    result, said = warned(lambda: open(os.devnull), flags)  # noqa: SIM115
    assert result.closed
    assert "/dev/null" in said

    def body() -> None:
        file = open(os.devnull)  # noqa: SIM115
        raise LookupError(str(file.fileno()))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        error = clone(body, flags=flags).exception()
    assert isinstance(error, LookupError)
    assert "/dev/null" in str(caught[0].message)


@APART
def test_nothing_is_said_of_what_is_closed_or_was_there_before(flags: F) -> None:
    with open(os.devnull) as mine, socket.socket() as connection, pipe() as ends:

        def body() -> None:
            with open(os.devnull), socket.socket():
                mine.fileno()
            os.open(os.devnull, os.O_RDONLY)  # so that the search takes place; a bare number is closed with the table

        assert warned(body, flags) == (None, "")
        assert not mine.closed
        assert connection.fileno() >= 0
        for number in ends:
            os.fstat(number)


@APART
def test_one_that_cannot_be_told_from_the_creators_is_named_and_left(flags: F) -> None:
    kept: list[Any] = []
    with open(os.devnull) as mine:

        def body() -> None:
            os.close(mine.fileno())
            kept.append(open("/dev/zero", "rb", buffering=0))  # noqa: SIM115
            assert kept[0].fileno() == mine.fileno()
            os.open(os.devnull, os.O_RDONLY)

        _, said = warned(body, flags)
        assert "may be the task's or the creator's" in said
        assert "/dev/zero" in said
        assert not kept[0].closed
        assert not mine.closed
        spare = os.dup(mine.fileno())
        kept[0].close()  # the creator's, as the warning says
        os.dup2(spare, mine.fileno())
        os.close(spare)


def test_where_warnings_are_errors_it_is_the_outcome() -> None:
    kept: list[Any] = []
    error = clone(lambda: kept.append(open(os.devnull)), flags=F.VM).exception()  # noqa: SIM115
    assert isinstance(error, ResourceWarning)
    assert kept[0].closed


@IN_NAMESPACES
def test_in_namespaces_of_its_own() -> None:
    kept: list[Any] = []
    _, said = warned(lambda: kept.append(open(os.devnull)), F.VM | F.NEWUSER | F.NEWPID | F.NEWNS)  # noqa: SIM115
    assert "/dev/null" in said
    assert kept[0].closed


def test_what_could_not_be_written_is_said() -> None:
    kept: list[Any] = []

    def body() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        kept.append(io.BufferedWriter(io.FileIO(writer, "w")))
        kept[0].write(b"nobody reads it")

    _, said = warned(body, F.VM)
    assert "not all of it was written" in said
    assert "Broken pipe" in said


def test_no_search_where_the_table_is_shared_or_nothing_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[None] = []
    monkeypatch.setattr("taskclone.leftovers._close", lambda creator: searches.append(None))
    call(lambda: open(os.devnull).close(), flags=F.VM)
    with open(os.devnull) as file:
        assert call(lambda: file, flags=F.VM | F.FILES) is file
    assert not searches
    kept: list[int] = []
    call(lambda: kept.append(os.open(os.devnull, os.O_RDONLY)), flags=F.VM)
    assert len(searches) == 1

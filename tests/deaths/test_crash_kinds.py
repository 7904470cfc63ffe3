"""Crashes: signals of the task's own making, with and without the interpreter lock."""

from __future__ import annotations

import pytest
from deathbed import NEEDS_LIBRARY, ROUTES, Death, creator, witness

pytestmark = NEEDS_LIBRARY


def _signal(name: str, body: str, more: str = "True", damage: str = "", lost: str = "", setting: str = "") -> Death:
    return Death(body, f"error.signal == signal.{name} and {more}", damage, lost, setting)


_BEYOND = """
import mmap, tempfile
file = tempfile.TemporaryFile()
file.truncate(4096)
view = mmap.mmap(file.fileno(), 4096)
file.truncate(0)
"""
CRASHES = {
    "segv": _signal("SIGSEGV", "with_lock.write_to(16)", "error.address == 16"),
    "segv-without-lock": _signal("SIGSEGV", "without_lock.write_to(16)", "error.address == 16"),
    "bus": _signal("SIGBUS", "view[0]", "error.address", setting=_BEYOND),
    "fpe": _signal("SIGFPE", "with_lock.divide(1, 0)", "error.address"),
    "ill": _signal("SIGILL", "without_lock.not_an_instruction()", "error.address"),
    "abort": _signal("SIGABRT", "os.abort()", "error.address is None"),
    "abort-without-lock": _signal("SIGABRT", "without_lock.raise_signal(signal.SIGABRT)", "error.address is None"),
    "c-stack-overflow": _signal("SIGSEGV", "with_lock.overflow_stack()", "error.address"),
    "c-stack-overflow-without-lock": _signal("SIGSEGV", "without_lock.overflow_stack()", "error.address"),
    "heap-corruption": _signal("SIGABRT", "with_lock.corrupt_heap()", damage="malloc", lost="copies"),
    "heap-corruption-without-lock": _signal("SIGABRT", "without_lock.corrupt_heap()", damage="malloc", lost="copies"),
    "library-threads": _signal(
        "SIGSEGV", "without_lock.start_thread(3600); without_lock.write_to(8)", damage="threads"
    ),
}


@ROUTES
@pytest.mark.parametrize("how", CRASHES)
def test_crash(route: str, how: str) -> None:
    witness(route, CRASHES[how])


@ROUTES
def test_kept_frame(route: str) -> None:
    """Frame objects that outlive their thread: reading and freeing them is sound."""
    creator(
        route,
        """
        kept = []
        def deeper(depth):
            local = ["local", depth]
            if depth: return deeper(depth - 1)
            kept.append(sys._getframe())
            try: raise ValueError("caught")
            except ValueError as error: kept.append(error)
            with_lock.write_to(16)
        def body(): deeper(200)
        error = die(body)
        assert error.signal == signal.SIGSEGV and len(error.stack) == 202 and not error.damage, error
        for _ in range(3):
            gc.collect()
            allocate()
            frame, n = kept[0], 0
            while frame.f_code.co_name == "deeper":
                assert frame.f_locals["local"] == ["local", n] and frame.f_lineno > 0
                frame, n = frame.f_back, n + 1
            assert n == 201
            assert kept[1].__traceback__.tb_frame.f_locals["depth"] == 0
        kept.clear()
        del frame
        gc.collect()
        goes_on()
        """,
    )


@ROUTES
def test_heap_corruptions_until_no_more_are_started(route: str) -> None:
    creator(
        route,
        """
        def body(): without_lock.corrupt_heap()
        for number in range(taskclone.stats()["malloc_limit"]):
            assert die(body).damage == ("malloc",)
        try: start(body)
        except UnsupportedOperation as refused: assert "Restart this process" in str(refused)
        else: raise AssertionError("started")
        assert "fork() takes" in copied()
        ticks = -10**9
        assert call(["true"], timeout=10) == 0
        gc.collect()
        say("goes on")
        """,
    )

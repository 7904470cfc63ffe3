"""Each step of csrc/core/child.c, one by one, seen from outside by a C program that has no Python in it."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SI_USER, SEGV_MAPERR = 0, 1

Steps = Callable[..., dict[str, str]]


def mask(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)


def bits(seen: dict[str, str], field: str, *numbers: int) -> list[bool]:
    """Whether each signal is in a mask of /proc/PID/status."""
    return [bool(int(seen[field], 16) & mask(number)) for number in numbers]


# ---- programs --------------------------------------------------------------------------------------------------------


def test_chdir(steps: Steps, tmp_path: Path) -> None:
    assert steps("chdir", tmp_path) == {"error": "0", "cwd": str(tmp_path)}
    seen = steps("chdir", tmp_path / "missing")
    assert seen == {"error": str(-errno.ENOENT), "cwd": os.getcwd()}


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[tuple[int, str]]]:
    """Three open files: descriptor and inode."""
    opened = []
    for name in ("a", "b", "c"):
        fd = os.open(tmp_path / name, os.O_CREAT | os.O_RDWR)
        opened.append((fd, str(os.fstat(fd).st_ino)))
    yield opened
    for fd, _ in opened:
        os.close(fd)


def test_streams(steps: Steps, files: list[tuple[int, str]]) -> None:
    fds = [fd for fd, _ in files]
    seen = steps("streams", *fds, pass_fds=tuple(fds))
    assert seen["error"] == "0"
    assert [seen[f"fd{i}"] for i in range(3)] == [inode for _, inode in files]
    assert [seen[f"cloexec{i}"] for i in range(3)] == ["0", "0", "0"]


@pytest.mark.parametrize(
    "order",
    [(1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (0, 1, 2), (0, 0, 0), (2, 2, 2), (1, 0, 0), (-1, 0, 1), (-1, -1, 1)],
)
def test_streams_among_themselves(steps: Steps, order: tuple[int, int, int]) -> None:
    """Swapped, in circles, equal and hence marked close-on-exec, or left as they are."""
    seen = steps("streams", *order)
    before = [seen[f"before{i}"] for i in range(3)]
    assert len(set(before)) == 3
    assert seen["error"] == "0"
    assert [seen[f"fd{i}"] for i in range(3)] == [before[i if n < 0 else n] for i, n in enumerate(order)]
    assert all(seen[f"cloexec{i}"] == "0" for i, n in enumerate(order) if n >= 0)


def test_streams_that_are_not_open(steps: Steps) -> None:
    assert steps("streams", 77, -1, -1)["error"] == str(-errno.EBADF)


@pytest.mark.parametrize("kept", [-1, 0, 2, 3, 4, 7, 300])
def test_close_fds(steps: Steps, kept: int) -> None:
    """All from 3 on, but the one that is kept; seen in a file table apart."""
    seen = steps("close_fds", kept)
    assert (seen["error"], seen["exited"]) == ("0", "0")
    still = {int(key[4:]) for key, value in seen.items() if key.startswith("open") and value == "1"}
    assert still == {0, 1, 2} | ({kept} if kept > 2 else set())


def test_close_fds_that_is_not_asked_for(steps: Steps) -> None:
    seen = steps("close_fds")
    assert (seen["error"], seen["open300"], seen["open3"], seen["exited"]) == ("0", "1", "1", "0")


def script(path: Path, mode: int = stat.S_IRWXU) -> Path:
    path.write_text('#!/bin/sh\necho "argv0 $0"; echo "first $1"; echo "only $ONLY"; echo "path ${HOME-unset}"\n')
    path.chmod(mode)
    return path


def test_exec_gives_argv_and_environment(steps: Steps, tmp_path: Path) -> None:
    seen = steps("exec", script(tmp_path / "s"))
    assert seen == {"argv0": str(tmp_path / "s"), "first": "argument", "only": "this", "path": "unset"}


def test_exec_goes_on_along_the_path(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plain = script(tmp_path / "plain", stat.S_IRUSR)
    good = script(tmp_path / "good")
    assert steps("exec", tmp_path / "missing", tmp_path / "file" / "x", plain, good)["first"] == "argument"


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (["missing", "missing2"], errno.ENOENT),
        (["plain", "missing"], errno.EACCES),
        (["missing", "plain"], errno.EACCES),
        (["garbage", "good"], errno.ENOEXEC),
        ([], errno.ENOENT),
    ],
)
def test_exec_that_fails(steps: Steps, tmp_path: Path, names: list[str], error: int) -> None:
    script(tmp_path / "good")
    script(tmp_path / "plain", stat.S_IRUSR)
    script(tmp_path / "garbage").write_text("no program\n")
    assert steps("exec", *(tmp_path / name for name in names)) == {"error": str(-error)}


def test_a_failed_step_is_recorded_with_its_name(steps: Steps, tmp_path: Path) -> None:
    seen = steps("run_steps", tmp_path / "missing")
    assert (seen["error"], seen["step"], seen["step_error"]) == (str(-errno.ENOENT), "chdir", str(errno.ENOENT))
    seen = steps("run_steps", tmp_path)
    assert (seen["step"], seen["step_error"]) == ("execve", str(errno.ENOENT)), "the steps before it passed"


def test_every_step_has_a_name(steps: Steps) -> None:
    names = list(steps("step_names").values())
    header = (Path(__file__).parents[2] / "csrc" / "core" / "report.h").read_text()
    assert len(names) - 1 == len(re.findall(r"^    TC_STEP_(?!COUNT)\w+,$", header, re.MULTILINE))
    assert names[-1] == "unknown"
    assert len(set(names)) == len(names)
    assert "(null)" not in names


def test_the_record_is_whole_or_not_there(steps: Steps) -> None:
    assert steps("report_atomic") == {"torn": "0", "seen": "1000000"}


# ---- signals ---------------------------------------------------------------------------------------------------------


def test_default_signals_are_those_that_the_interpreter_ignores(steps: Steps) -> None:
    seen = steps("default_signals")
    assert seen["error"] == "0"
    assert bits(seen, "SigIgn", signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR1) == [False, False, True]


def test_signals(steps: Steps) -> None:
    seen = steps("signals", f"{mask(signal.SIGUSR1, signal.SIGTERM, 64):x}", f"{mask(signal.SIGUSR2):x}")
    assert seen["error"] == "0"
    assert bits(seen, "SigIgn", signal.SIGUSR1, signal.SIGTERM, 64, signal.SIGUSR2) == [True, True, True, False]
    assert int(seen["SigCgt"], 16) == 0
    seen = steps("signals", "0", f"{mask(signal.SIGUSR1):x}")
    assert bits(seen, "SigIgn", signal.SIGUSR1, signal.SIGUSR2) == [False, True], "what is not named stays"
    assert int(seen["SigCgt"], 16) == 0
    assert steps("signals", f"{mask(signal.SIGKILL):x}", "0")["error"] == str(-errno.EINVAL)


def test_sigmask(steps: Steps) -> None:
    wanted = mask(signal.SIGUSR1, signal.SIGTERM, 64)
    seen = steps("sigmask", f"{wanted:x}")
    assert (seen["error"], int(seen["SigBlk"], 16)) == ("0", wanted)


def test_all_signals_can_be_blocked_but_glibcs_own(steps: Steps) -> None:
    seen = steps("block_signals")
    assert seen["error"] == "0"
    unblockable = mask(signal.SIGKILL, signal.SIGSTOP)
    assert int(seen["SigBlk"], 16) == (1 << 64) - 1 - unblockable - mask(33)


def test_altstack(steps: Steps) -> None:
    assert steps("altstack") == {"error": "0", "size": str(64 << 10), "same": "1"}
    assert steps("altstack", 100)["error"] == str(-errno.ENOMEM)


@pytest.mark.parametrize("name", ["SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS", "QUIT", "XCPU", "XFSZ"])
def test_a_fatal_signal_leaves_a_record_and_ends_the_task_by_sigkill(steps: Steps, name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    seen = steps("fatal_handlers", int(number))
    assert (seen["killed"], seen["crashed"]) == (str(int(signal.SIGKILL)), "1")
    assert (int(seen["signal"]), int(seen["code"])) == (number, SI_USER)


def test_the_record_of_a_fault_has_address_and_place(steps: Steps) -> None:
    seen = steps("fatal_handlers", 0, "0x1234")
    assert seen["killed"] == str(int(signal.SIGKILL))
    assert (int(seen["signal"]), int(seen["code"]), seen["address"]) == (signal.SIGSEGV, SEGV_MAPERR, "0x1234")
    assert int(seen["pc"], 16) > 0x1000


def test_a_stack_overflow_is_recorded_on_the_alternate_stack(steps: Steps) -> None:
    seen = steps("fatal_handlers", 0, "overflow")
    assert (seen["killed"], seen["signal"]) == (str(int(signal.SIGKILL)), str(int(signal.SIGSEGV)))


def test_with_kernel_core_the_signal_is_the_kernels(steps: Steps) -> None:
    seen = steps("fatal_handlers", int(signal.SIGSEGV), "core")
    assert (seen["killed"], seen["crashed"]) == (str(int(signal.SIGSEGV)), "0")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"])
def test_polite_signals_ring_the_bell(steps: Steps, name: str) -> None:
    number = int(signal.Signals[name])
    seen = steps("handlers", number)
    assert (seen["error"], seen["alive"], seen["asked_by"], seen["bell"]) == ("0", "1", str(number), "1")
    seen = steps("handlers", number, "ignored")
    assert (seen["alive"], seen["asked_by"], seen["bell"]) == ("1", "0", "0")
    assert bits(seen, "SigIgn", number) == [True], "what the creator ignores stays ignored"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTSTP", "SIGTTIN", "SIGTTOU"])
def test_the_terminals_signals_do_nothing(steps: Steps, name: str) -> None:
    number = int(signal.Signals[name])
    seen = steps("handlers", number)
    assert (seen["error"], seen["alive"], seen["asked_by"], seen["bell"]) == ("0", "1", "0", "0")
    handled = name in ("SIGINT", "SIGTSTP")  # else a program started in the task would inherit that they are ignored
    assert bits(seen, "SigCgt", number) == [handled]
    assert bits(seen, "SigIgn", number) == [not handled]


def test_handlers_are_reset_by_calls_where_clone_could_not_say_it(steps: Steps) -> None:
    numbers = (signal.SIGUSR1, signal.SIGRTMAX)
    seen = steps("clear_handlers")
    assert (seen["error"], int(seen["SigCgt"], 16)) == ("0", 0)
    assert bits(seen, "SigIgn", signal.SIGUSR2) == [True]
    seen = steps("clear_handlers", "by_clone3")
    assert bits(seen, "SigCgt", *numbers) == [True, True], "nothing was left to it"


def test_with_sighand_no_handler_is_touched(steps: Steps) -> None:
    seen = steps("handlers_with_sighand")
    assert (seen["error"], int(seen["SigCgt"], 16)) == ("0", 0)


# ---- a task of its own -----------------------------------------------------------------------------------------------


def test_name(steps: Steps) -> None:
    seen = steps("name", "a-name-of-17-byte")
    assert (seen["error"], seen["Name"].strip()) == ("0", "a-name-of-17-by")


def test_rseq(steps: Steps) -> None:
    seen = steps("rseq")
    assert seen["none"] == "0"
    if "unavailable" not in seen:
        assert (seen["error"], seen["twice"]) == ("0", str(-errno.EBUSY))


def test_a_task_dies_with_its_creator(steps: Steps) -> None:
    assert steps("parent_death") == {"error": "0", "exited": "-1", "killed": str(int(signal.SIGKILL))}


def test_a_creator_that_is_gone_already_is_noticed(steps: Steps) -> None:
    seen = steps("parent_death_late")
    assert seen["not_asked"] == "0"
    assert seen["by_id"] == str(-errno.ESRCH)
    assert seen["by_living_pidfd"] == "0"
    assert seen["by_dead_pidfd"] == str(-errno.ESRCH)

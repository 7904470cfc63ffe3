"""Bad input, first half: flags and things to run that are refused before or at the start; nothing is left behind."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from taskclone import (
    CAPTURE,
    THREAD,
    ChildSetup,
    CloneFlags,
    FlagError,
    Plan,
    StartError,
    TaskError,
    UnsupportedOperation,
    call,
    clone,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags


def never() -> None:
    raise AssertionError("a body ran")


# ---- flags ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["VN", "VM|", "VM,FILES", "CLONE_", "0x", "12x", "VM||FILES"])
def test_an_unknown_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"flag"):
        clone(never, flags=text)


@pytest.mark.parametrize("flags", [None, 1.0, True, [F.VM], b"VM"])
def test_flags_of_a_wrong_type(flags: Any) -> None:
    with pytest.raises(TypeError):
        clone(never, flags=flags)


@pytest.mark.parametrize("flags", [-1, 1 << 64])
def test_numbers_that_do_not_fit(flags: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        clone(never, flags=flags)


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ("SIGHAND", "sighand-needs-vm"),
        ("VM|THREAD", "thread-needs-sighand"),
        ("VM|SIGHAND|CLEAR_SIGHAND", "sighand-clear-sighand"),
        ("FS|NEWNS", "fs-new-mounts"),
        ("FS|NEWUSER", "fs-new-user"),
        ("VM|DETACHED", "not-for-clone3"),
        (1 << 60, "unknown-bits"),
        (F.VM | 17, "signal-in-flags"),
    ],
)
def test_an_illegal_set_has_the_kernels_errno_and_its_rule(flags: Any, rule: str) -> None:
    for start in (clone, call):
        with pytest.raises(FlagError) as caught:
            start(never, flags=flags)
        assert (caught.value.errno, caught.value.rule) == (errno.EINVAL, rule)
        assert isinstance(caught.value, OSError)
    with pytest.raises(FlagError):
        Plan(flags)


def test_thread_alone_points_to_the_preset() -> None:
    with pytest.raises(FlagError, match=r"taskclone\.THREAD") as caught:
        clone(never, flags=F.THREAD)
    assert caught.value.rule == "thread-needs-sighand"


def test_an_exit_signal_for_a_thread_is_refused() -> None:
    with pytest.raises(FlagError):
        clone(never, flags=THREAD, exit_signal=signal.SIGCHLD)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (F.VM | F.PARENT, "PARENT"),
        (F.VM | F.SIGHAND | F.PARENT, "PARENT"),
        (F.VM | F.VFORK | F.PARENT, "PARENT"),
    ],
)
def test_legal_sets_that_this_version_does_not_carry(flags: F, word: str) -> None:
    with pytest.raises(UnsupportedOperation, match=rf"\b{word}\b") as caught:
        clone(never, flags=flags)
    assert isinstance(caught.value, TaskError)


# ---- what to run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, 3, object(), {"a": 1}, {"ls"}, iter(["ls"])])
def test_neither_callable_nor_argv(body: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        clone(body)


@pytest.mark.parametrize("body", ["ls", b"ls", Path("/bin/ls")])
def test_a_lone_string_is_no_program(body: Any) -> None:
    for start in (clone, call, Plan().start):
        with pytest.raises(TypeError, match=r"\['?"):
            start(body)


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ([], ValueError),
        ((), ValueError),
        (["ls", 1], TypeError),
        (["ls", None], TypeError),
        (["ls", "a\0b"], ValueError),
        ([b"l\0s"], ValueError),
        ([""], FileNotFoundError),
    ],
)
def test_bad_argv(argv: Any, error: type[Exception]) -> None:
    if error is FileNotFoundError:
        with pytest.raises(StartError) as caught:
            clone(argv)
        assert caught.value.errno in (errno.ENOENT, errno.EACCES)
        return
    with pytest.raises(error):
        clone(argv)


def test_a_program_takes_no_arguments_beside_its_argv() -> None:
    with pytest.raises(TypeError, match="argv"):
        clone(["true"], "x")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="argv"):
        Plan().start(["true"], x=1)  # type: ignore[arg-type,call-arg]


@pytest.mark.parametrize("name", ["no-such-program-here", "/no/such/program"])
def test_a_program_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)  # without folders that this user may not search: they would say EACCES
    with pytest.raises(StartError, match="no such program") as caught:
        clone([name])
    error = caught.value
    assert (error.errno, error.step, error.filename) == (errno.ENOENT, "execve", name)


def test_a_file_that_is_not_executable(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("#!/bin/sh\n")
    with pytest.raises(StartError) as caught:
        clone([file])
    assert (caught.value.errno, caught.value.step) == (errno.EACCES, "execve")
    file.chmod(stat.S_IRWXU)
    file.write_text("no program\n")
    with pytest.raises(StartError, match="#!") as caught:
        clone([str(file)])
    assert (caught.value.errno, caught.value.step) == (errno.ENOEXEC, "execve")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(StartError, match="working directory") as caught:
        clone(["true"], setup=ChildSetup(cwd=missing))
    assert (caught.value.errno, caught.value.step, caught.value.filename) == (errno.ENOENT, "chdir", str(missing))
    missing.write_text("")
    with pytest.raises(StartError) as caught:
        call(["true"], setup=ChildSetup(cwd=missing))
    assert (caught.value.errno, caught.value.step) == (errno.ENOTDIR, "chdir")


@pytest.mark.parametrize(("body", "flags"), [(["true"], 0), (never, 0), (never, "VM")])
def test_streams_that_are_none(body: Any, flags: Any) -> None:
    for value, error, text in (
        (-7, ValueError, "-7"),
        (subprocess.PIPE, ValueError, "CAPTURE"),
        (1.5, TypeError, "float"),
        ("out", TypeError, "str"),
        (True, TypeError, "bool"),
    ):
        with pytest.raises(error, match=text):
            clone(body, flags=flags, stdout=value)
    with pytest.raises(TypeError, match="stdin"):
        clone(body, flags=flags, stdin=CAPTURE, stderr=CAPTURE)
    with pytest.raises(StartError) as caught:
        clone(body, flags=flags, stdout=98765)
    assert (caught.value.errno, caught.value.step) == (errno.EBADF, "streams")


def test_what_a_program_cannot_have() -> None:
    for fields in ({"stack_size": 1 << 20}, {"exit_signal": signal.SIGUSR1}, {"setup": ChildSetup(core=True)}):
        with pytest.raises(UnsupportedOperation):
            clone(["true"], **fields)
    with pytest.raises(UnsupportedOperation):
        clone(["true"], flags=F.VM | F.SIGHAND)

"""A step that fails, seen from clone(): in a process of its own, a seccomp filter refuses its system call."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import creator

SCRIPT = """
sys.path.insert(0, {tests!r})
import errno, seccomp
from proc import children_of, descriptors
S = signal
call(int, flags={warm!r})  # so that a host is parked, made before the filter
seccomp.refuse({call!r}, errno.ENOTRECOVERABLE, {first!r})
def never(): say("the body ran")
def attempt():
    try:
        clone({body}, flags={flags!r}, **dict({fields}))
    except StartError as error:
        say(error.step, error.errno, "|".join(map(str, error.args)))
attempt()
before = descriptors()
attempt()
assert descriptors() == before, (before, descriptors())
deadline = time.monotonic() + 10
while children_of(os.getpid()) and time.monotonic() < deadline: time.sleep(0.001)
say(children_of(os.getpid()))
"""

PD = 1
NAME = 15
EVERY = [
    ("parent_death", "prctl", PD, "setup=ChildSetup(parent_death_signal=S.SIGKILL)"),
    ("signals", "rt_sigaction", 28, "setup=ChildSetup(signals={S.SIGWINCH: 'ignore'})"),
    ("chdir", "chdir", None, "setup=ChildSetup(cwd='/')"),
    ("streams", "dup3", None, "stdout=CAPTURE, stderr=CAPTURE"),
]
FUNCTIONS = [("name", "prctl", NAME, "name='x', setup=ChildSetup(sigmask=())")]
CASES = {
    "copied": (0, [*EVERY, *FUNCTIONS, ("close_fds", "close_range", None, "setup=ChildSetup(close_fds=True)"),
                   ("name", "prctl", NAME, "name='x'")]),
    "relay": ("UNTRACED", [*EVERY, *FUNCTIONS, ("name", "prctl", NAME, "name='x'"), ("clone3", "clone3", None, "")]),
    "bare": (0, [(step, call, first, f"bare=True, {fields}") for step, call, first, fields in
                 [*EVERY, *FUNCTIONS, ("name", "prctl", NAME, "name='x'"), ("clone3", "clone3", None, "")]]),
    "shared": ("VM", [*EVERY, *FUNCTIONS, ("altstack", "sigaltstack", None, "setup=ChildSetup(cwd='/')"),
                      ("fatal_handlers", "rt_sigaction", 11, "exit_signal=S.SIGCHLD, setup=ChildSetup(cwd='/')"),
                      ("handlers", "rt_sigaction", 10, "setup=ChildSetup(cwd='/')")]),
    "in_place": ("VM|VFORK", EVERY),
    "program": (0, [*EVERY, ("close_fds", "close_range", None, "setup=ChildSetup(close_fds=True)"),
                    ("default_signals", "rt_sigaction", 13, ""), ("execve", "execve", None, "")]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("route", "step", "call", "first", "fields"),
    [
        pytest.param(route, *case, id=f"{route}-{case[0]}-{i}")
        for route in CASES
        for i, case in enumerate(CASES[route][1])
    ],
)
def test_a_failed_step_is_a_start_error(route: str, step: str, call: str, first: int | None, fields: str) -> None:
    script = SCRIPT.format(
        tests=str(Path(__file__).parent),
        warm=CASES[route][0],
        call=call,
        first=first,
        body="['true']" if route == "program" else "never",
        flags=CASES[route][0],
        fields=fields,
    )
    code, out, err = creator.run(script)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [[step, str(errno.ENOTRECOVERABLE)]] * 2, "the body never ran"
    assert lines[-1] == "{}", "reaped"

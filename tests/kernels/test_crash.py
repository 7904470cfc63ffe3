"""Deaths by signals that dump core: the creator lives, and so does whoever else shares the memory.

A kernel before 5.16 ends every process that shares the memory when one of them gets such a signal, so each creator is a
process of its own.
"""

from __future__ import annotations

import os
import signal

import pytest
from probes import core_signals_end_every_sharer

from creator import run

SHARING = ["SHARED", "CloneFlags.VM", "SHARED | CloneFlags.FS | CloneFlags.SYSVSEM", "SHARED | VFORK"]
CORE_SIGNALS = ["SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP", "SYS", "QUIT", "XCPU", "XFSZ"]
SYS_CLOCK_NANOSLEEP = 230 if os.uname().machine == "x86_64" else 115

CREATOR = """
import ctypes, resource, subprocess
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
def fault():
    ctypes.string_at(16)
"""
TICKING = (
    CREATOR
    + """
ticks = 0
def tick():
    global ticks
    while ticks >= 0:
        ticks += 1
        time.sleep(0.001)
thread = threading.Thread(target=tick)
thread.start()
"""
)
GOES_ON = """
before = ticks
while ticks == before:
    time.sleep(0.001)
ticks = -10**9
thread.join()
assert call(abs, -7, flags=SHARED) == 7
say("goes on")
"""


@pytest.mark.parametrize("flags", SHARING)
def test_the_creator_outlives_each_core_signal(flags: str) -> None:
    script = f"""
for name in {CORE_SIGNALS}:
    number = getattr(signal, "SIG" + name)
    error = clone(signal.raise_signal, number, flags={flags}).exception()
    assert isinstance(error, TaskDied) and error.signal == number, (name, error)
error = clone(fault, flags={flags}).exception()
assert error.signal == signal.SIGSEGV and error.address == 16 and error.stack[-1].name == "string_at", error
"""
    assert run(TICKING + script + GOES_ON) == (0, "goes on\n", "")


def test_the_other_sharers_outlive_it_too() -> None:
    script = """
gate = os.pipe()
others = [clone(os.read, gate[0], 1, flags=flags) for flags in (SHARED, CloneFlags.VM)]
assert clone(fault, flags=SHARED).exception().signal == signal.SIGSEGV
assert clone(fault, flags=SHARED | VFORK).exception().signal == signal.SIGSEGV
os.write(gate[1], b"xx")
assert [task.result() for task in others] == [b"x", b"x"]
"""
    assert run(TICKING + script + GOES_ON) == (0, "goes on\n", "")


def test_a_strangers_core_signal() -> None:
    """Sent by kill, to a task that sleeps in the kernel: not a fault, but the same default action. (One that waits for
    the interpreter lock at that moment may leave it unusable, as with SIGKILL.)"""
    script = f"""
asleep = "{SYS_CLOCK_NANOSLEEP} "
for name in ("SEGV", "ABRT", "QUIT"):
    task = clone(time.sleep, 3600, flags=SHARED)
    while not open(f"/proc/{{task.pid}}/syscall").read().startswith(asleep):
        time.sleep(0.001)
    subprocess.run(["kill", f"-{{name}}", str(task.pid)], check=True)
    assert task.exception().signal == getattr(signal, "SIG" + name), task.exception()
"""
    assert run(TICKING + script + GOES_ON) == (0, "goes on\n", "")


def test_left_to_the_kernel_it_ends_whom_the_kernel_ends() -> None:
    """``core=True`` has no handler: a kernel that ends every sharer ends the creator."""
    script = """
error = clone(fault, flags=SHARED, setup=ChildSetup(core=True)).exception()
assert error.signal == signal.SIGSEGV and error.address is None, error
"""
    done = run(TICKING + script + GOES_ON)
    assert done == ((-signal.SIGSEGV, "", "") if core_signals_end_every_sharer() else (0, "goes on\n", ""))


def test_a_copy_and_a_program_die_alone() -> None:
    script = """
for body in ([fault], [["sh", "-c", "kill -SEGV $$"]]):
    task = clone(*body)
    error = task.exception()
    assert isinstance(error, TaskDied) and error.signal == signal.SIGSEGV, error
    assert not error.status.core_dumped
"""
    assert run(CREATOR + script + "say('goes on')") == (0, "goes on\n", "")

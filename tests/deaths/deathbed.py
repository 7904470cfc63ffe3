"""Creators of which one task dies: each a process of its own with a watchdog, on each way to share memory.

A creator starts a thread that ticks, lets its task die, says what it saw, and then shows what goes on working, what
does not, and that it exits with status 0. Its script has ``die`` (a body that ends by itself), ``end`` (one that is
ended from outside) and ``goes_on``.
"""

from __future__ import annotations

import os
import textwrap
from typing import NamedTuple

import pytest

from creator import run

NEEDS_LIBRARY = pytest.mark.skipif("TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: `make test`")
ROUTES = pytest.mark.parametrize("route", ["lent", "hosted", "in place"])
"""The caller's own clone on a host's storage, a host's clone, and the caller's that sleeps until the task has ended."""

GLIBC = ("free(): ", "malloc(): ", "double free", "corrupted ", "munmap_chunk(): ")
"""How the C library begins what it says of a broken heap."""

PRELUDE = """
import concurrent.futures, contextlib, ctypes, gc, io, logging, queue, subprocess, warnings, zlib
import taskclone
IN_PLACE = SHARED | VFORK
library = os.environ["TASKCLONE_BUILD"] + "/csrc/testing/libcrashes.so"
without_lock, with_lock = ctypes.CDLL(library), ctypes.PyDLL(library)

def in_thread(fn, *args):
    "What fn returns, in a thread that may hang: then this is a TimeoutError."
    found = concurrent.futures.Future()
    def run():
        try: found.set_result(fn(*args))
        except BaseException as error: found.set_exception(error)
    threading.Thread(target=run, daemon=True).start()
    return found.result(10)

ticks = 0
def tick():
    global ticks
    while ticks >= 0:
        ticks += 1
        time.sleep(0.001)
ticker = threading.Thread(target=tick, daemon=True)
ticker.start()

def start(body, **fields):
    if ROUTE == "hosted":
        return in_thread(lambda: clone(body, flags=SHARED, **fields))
    return clone(body, flags=IN_PLACE if ROUTE == "in place" else SHARED, **fields)

def die(body, **fields):
    error = start(body, **fields).exception(10)
    assert isinstance(error, TaskDied), error
    return error

def settled(pid):
    "Whether it is in its wait, or deep in C code: an exception that came before would end it too."
    # The switches: who waits for the interpreter lock wakes each 5 ms, to wait in the same place again.
    switches = lambda: [line for line in open(f"/proc/{pid}/status") if line.startswith("voluntary")]
    place = lambda: (open(f"/proc/{pid}/syscall").read(), switches())
    used = lambda: int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11])
    first = place()
    for _ in range(5):
        time.sleep(0.01)
        if place() != first or first[0] == "running\\n": return used() > 10
    return True

def end(body, ask=None, wait=True):
    "The TaskDied of a body that is asked to end; by default by kill(), in place by SIGTERM."
    gate = os.pipe()
    def begun():
        os.write(gate[1], b"%d " % os.getpid())
        body()
    tasks = []
    starter = threading.Thread(target=lambda: tasks.append(start(begun)))
    starter.start()
    if ROUTE != "in place":
        starter.join()
    pid = int(os.read(gate[0], 20))
    while wait and not settled(pid): pass
    if ask:
        ask(pid)
    elif ROUTE == "in place":
        os.kill(pid, signal.SIGTERM)
    else:
        tasks[0].kill()
    starter.join()
    for fd in gate:
        os.close(fd)
    error = tasks[0].exception(10)
    assert isinstance(error, TaskDied), error
    return error

def collections():
    return sum(generation["collections"] for generation in gc.get_stats())

def allocate(rounds=200):
    blocks = [bytearray(500 + 997 * (n % 60)) for n in range(rounds)]
    return len(blocks)

def log():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("after").addHandler(handler)
    logging.getLogger("after").warning("works")
    logging.getLogger("after").removeHandler(handler)
    return stream.getvalue()

def import_one():
    assert "colorsys" not in sys.modules
    import colorsys
    return colorsys.__name__

def copied():
    try: return call(abs, -7, timeout=10)
    except UnsupportedOperation as refused: return str(refused)

def goes_on(*lost):
    "Each thing works, but what is `lost`, which must not: or the list would be too long."
    global ticks
    before = ticks
    while ticks == before: time.sleep(0.001)
    ticks = -10**9
    ticker.join()
    assert call(abs, -7, flags=SHARED, timeout=10) == 7
    assert in_thread(lambda: call(abs, -7, flags=SHARED, timeout=10)) == 7
    assert call(abs, -7, flags=IN_PLACE) == 7
    assert call(abs, -7, flags=THREAD, timeout=10) == 7
    assert call(["true"], timeout=10) == 0
    assert (copied() == 7) == ("copies" not in lost), copied()
    assert in_thread(log) == "works\\n"
    assert in_thread(import_one) == "colorsys"
    threads = [threading.Thread(target=allocate, daemon=True) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    count = collections()
    gc.collect()
    assert (collections() > count) == ("collector" not in lost)
    deadline = time.monotonic() + 10
    with contextlib.suppress(ChildProcessError):
        while True:  # a zombie is reaped by the host, a moment later
            left = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | 0x40000000)
            assert time.monotonic() < deadline, left
            time.sleep(0.001)
    say("goes on")
"""


class Death(NamedTuple):
    """One way to die, in Python text."""

    body: str
    """The statements of the body."""
    sees: str
    """What holds of ``error``, the TaskDied."""
    damage: str = ""
    """The kinds of what it has left behind, in their order, with commas."""
    lost: str = ""
    """What does not work afterwards; see ``goes_on``."""
    setting: str = ""
    """Statements before."""
    asked: str = ""
    """Arguments of ``end``; without them it dies by itself."""
    afterwards: str = ""


def witness(route: str, death: Death, *options: str) -> None:
    """Lets a task of a creator of its own die so, and holds what the creator sees."""
    damage = death.damage.split(", ") if death.damage else []
    script = f"""
{death.setting}
def body():
{textwrap.indent(death.body, "    ")}
error = {f"end(body, {death.asked})" if death.asked else "die(body)"}
assert {death.sees}, error
assert [text.partition(":")[0] for text in error.damage] == {damage}, error.damage
assert "body" in [frame.name for frame in error.stack] or error.code is not None, error
{death.afterwards}
goes_on(*{death.lost.split()})
"""
    creator(route, script, *options)


def creator(route: str, script: str, *options: str) -> str:
    """Stdout of a creator that must exit with status 0 and say nothing on stderr; it ends by ``goes_on``."""
    script = f"ROUTE = {route!r}\n{PRELUDE}\n{textwrap.dedent(script)}"
    status, out, err = run(script, "-W", "ignore::DeprecationWarning", *options)  # of a copy beside threads
    err = "".join(line for line in err.splitlines(True) if not line.startswith(GLIBC))
    assert (status, out[-8:], err) == (0, "goes on\n", ""), (status, out, err)
    return out

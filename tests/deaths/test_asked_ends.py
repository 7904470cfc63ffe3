"""Ends that are asked for, while the body computes, waits or writes: by kill(), in place by SIGTERM."""

from __future__ import annotations

import os

import pytest
from deathbed import NEEDS_LIBRARY, ROUTES, Death, creator, witness

pytestmark = NEEDS_LIBRARY
SYS_WRITE = 1 if os.uname().machine == "x86_64" else 64

_RAISED = "error.code == 143"
_KILLED = "error.signal == signal.SIGKILL and 'ended by' in str(error)"
_FILL = """
silent, full, never = os.pipe(), os.pipe(), threading.Lock()
never.acquire()
def fill():
    "A write that has written something returns at the first stop; only into a full pipe does it go on waiting."
    os.set_blocking(full[1], False)
    with contextlib.suppress(BlockingIOError):
        while True: os.write(full[1], bytes(4096))
    os.set_blocking(full[1], True)
fill()
"""


def _raised(body: str, setting: str = "") -> Death:
    return Death(body, _RAISED, setting=setting, asked="wait=False")


def _killed(body: str) -> Death:
    return Death(body, _KILLED, setting=_FILL, asked="wait=True")


ENDS = {
    "spin": _raised("while True: pass"),
    "allocate": _raised("while True: [bytearray(n) for n in range(1000)]"),
    "zlib": _raised("while True: zlib.compress(data)", "data = os.urandom(2**20)"),
    "sleep": _killed("time.sleep(3600)"),
    "read": _killed("os.read(silent[0], 1)"),
    "lock": _killed("never.acquire()"),
    "condition": _killed("with (waiting := threading.Condition()): waiting.wait()"),
    "queue": _killed("queue.Queue().get()"),
    "simple-queue": _killed("queue.SimpleQueue().get()"),
    "event": _killed("threading.Event().wait()"),
    "timed-event": _killed("threading.Event().wait(3600)"),
    "full-pipe": _killed("os.write(full[1], b'x')"),
    "endless-c": _killed("without_lock.spin_for_ever()"),
    "kill-in-rlock": _killed("with lock: time.sleep(3600)")._replace(
        setting="lock = threading.RLock()", damage="RLock", afterwards="assert not lock.acquire(timeout=0.1)"
    ),
}


@ROUTES
@pytest.mark.parametrize("how", ENDS)
def test_end(route: str, how: str) -> None:
    witness(route, ENDS[how])


@pytest.mark.parametrize("route", ["lent", "hosted"])
def test_print_to_a_full_pipe(route: str) -> None:
    """It holds the file's lock, so it is not killed; who asks is told, and it ends once somebody reads."""
    creator(
        route,
        f"""
        {_FILL.replace(chr(10), chr(10) + " " * 8)}
        file = open(full[1], "w")
        def body(): print("x" * 10**6, file=file, flush=True)
        task = start(body)
        while not open(f"/proc/{{task.pid}}/syscall").read().startswith("{SYS_WRITE} "): time.sleep(0.001)
        try: task.kill(timeout=1)
        except TimeoutError as error: assert "in write()" in str(error) and "in body" in str(error), error
        assert task.running()
        def drain():
            while os.read(full[0], 2**16): pass
        drainer = threading.Thread(target=drain)
        drainer.start()
        error = task.exception(10)
        assert error is None or error.damage == (), error  # it may have ended by itself just then
        file.close()
        drainer.join()
        goes_on()
        """,
    )


@ROUTES
def test_endless_c_with_the_lock(route: str) -> None:
    """No Python runs in the creator meanwhile, so nobody there can ask; a stranger can kill it, and all goes on."""
    creator(
        route,
        """
        told = os.pipe()
        stranger = subprocess.Popen(["sh", "-c", "read pid; kill -9 $pid"], stdin=told[0])
        def body():
            with_lock.tell_and_spin(told[1])
        error = die(body)
        assert error.signal == signal.SIGKILL and error.stack[-1].name == "body" and error.damage == (), error
        stranger.wait()
        goes_on()
        """,
    )

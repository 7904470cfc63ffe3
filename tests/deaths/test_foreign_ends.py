"""Exits of the body's own, limits and filters, and what strangers and the terminal send."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from deathbed import NEEDS_LIBRARY, ROUTES, Death, creator, witness

pytestmark = NEEDS_LIBRARY

_FILTER = f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); import resource, seccomp"
EXITS = {
    "os._exit": Death("os._exit(9)", "error.code == 9 and error.stack[-1].name == 'body'"),
    "c-exit": Death("ctypes.CDLL(None).exit(7)", "error.code == 7 and error.stack[-1].name == 'body'"),
    "sys.exit": Death("sys.exit(5)", "error.code == 5"),
    "xcpu": Death(
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 5)); without_lock.spin_for_ever()",
        "error.signal == signal.SIGXCPU",
        setting=_FILTER,
    ),
    "seccomp": Death("seccomp.kill('chdir'); os.chdir('/')", "error.signal == signal.SIGSYS", setting=_FILTER),
    "sigkill": Death(
        "time.sleep(3600)", "error.signal == signal.SIGKILL", asked="lambda pid: os.kill(pid, signal.SIGKILL)"
    ),
    "sigkill-in-c": Death(
        "without_lock.spin_for_ever()",
        "error.signal == signal.SIGKILL",
        asked="lambda pid: os.kill(pid, signal.SIGKILL)",
    ),
    "sigsegv-from-outside": Death(
        "time.sleep(3600)", "error.signal == signal.SIGSEGV", asked="lambda pid: os.kill(pid, signal.SIGSEGV)"
    ),
    "sigterm": Death(
        "while True: time.sleep(0.001)",
        "error.code == 143",
        asked="lambda pid: os.kill(pid, signal.SIGTERM), wait=False",
    ),
    "kill-term-group": Death(
        "while True: time.sleep(0.001)",
        "error.code == 143 and seen == [signal.SIGTERM]",
        setting="seen = []; signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))",
        asked="lambda pid: os.killpg(os.getpgid(pid), signal.SIGTERM), wait=False",
    ),
    "sigstop-then-end": Death(
        "time.sleep(3600)",
        "error.signal == signal.SIGKILL",
        asked="lambda pid: (os.kill(pid, signal.SIGSTOP), os.kill(pid, signal.SIGKILL))",
    ),
}


@ROUTES
@pytest.mark.parametrize("how", EXITS)
def test_exit(route: str, how: str) -> None:
    if how == "c-exit" and tuple(map(int, platform.libc_ver()[1].split("."))) >= (2, 41):
        pytest.skip("from glibc 2.41 on exit() keeps a lock: the creator's own would wait for ever")
    witness(route, EXITS[how])


@ROUTES
def test_sigstop(route: str) -> None:
    """A task that is stopped without the interpreter lock stops nobody else; with it, everybody until it goes on."""
    creator(
        route,
        """
        import functools
        told = os.pipe()
        stranger = "read pid; sleep 0.2; kill -STOP $pid; sleep 0.8; kill -CONT $pid"  # once it is in its sleep
        def body(sleep, microseconds):
            os.write(told[1], b"%d\\n" % os.getpid())
            sleep(microseconds)
            return "went on"
        def longest_pause(sleep, microseconds):
            with subprocess.Popen(["sh", "-c", stranger], stdin=told[0]):
                asleep = functools.partial(body, sleep, microseconds)
                starter = threading.Thread(target=lambda: results.append(start(asleep).result(10)))
                longest, last = 0, time.monotonic()
                starter.start()
                while starter.is_alive():
                    now = time.monotonic()
                    longest, last = max(longest, now - last), now
                    time.sleep(0.001)
                longest = max(longest, time.monotonic() - last)
            return longest
        results = []
        assert longest_pause(ctypes.CDLL(None).usleep, 1_000_000) < 0.5
        assert longest_pause(ctypes.PyDLL(None).usleep, 600_000) > 0.8
        assert results == ["went on"] * 2
        goes_on()
        """,
    )


@ROUTES
def test_ctrl_c(route: str) -> None:
    """On a terminal of the creator's own: it rises once, in the creator, and the task goes on."""
    creator(
        route,
        """
        import pty
        master, slave = pty.openpty()
        os.open(os.ttyname(slave), os.O_RDWR)  # the first that a leader of a session opens is its terminal
        told = os.pipe()
        def body():
            os.write(told[1], b"%d " % os.getpid())
            time.sleep(0.5)
            results.append("went on")
        def press():
            pid = int(os.read(told[0], 20))
            assert os.tcgetpgrp(slave) == os.getpgid(pid) == os.getpgrp()
            while not settled(pid): pass
            os.write(master, b"\\x03")
        results, interrupts = [], 0
        presser = threading.Thread(target=press)
        presser.start()
        while not results:
            try:
                if presser.is_alive() and not interrupts: start(body).result(10)
                while not results: time.sleep(0.001)
            except KeyboardInterrupt:
                interrupts += 1
        presser.join()
        time.sleep(0)
        assert (results, interrupts) == (["went on"], 1), (results, interrupts)
        goes_on()
        """,
    )

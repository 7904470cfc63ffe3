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
        told, gate = os.pipe(), os.pipe()
        stranger = "read pid; kill -STOP $pid; sleep %s; kill -CONT $pid; echo"
        pids, results = [], []
        def stopped():
            try: return pids and open(f"/proc/{pids[0]}/stat").read().rpartition(") ")[2][0] == "T"
            except (FileNotFoundError, ProcessLookupError): return False  # it has ended
        def python_ran_meanwhile(library, at_most):
            def body():
                pids.append(os.getpid())
                library.tell_and_read(told[1], gate[0])
                return "went on"
            pids.clear()
            command = ["sh", "-c", stranger % at_most]
            with subprocess.Popen(command, stdin=told[0], stdout=gate[1], start_new_session=True) as process:
                starter = threading.Thread(target=lambda: results.append(start(body).result(10)))
                starter.start()
                ran = False
                while starter.is_alive():
                    # Twice: the first may be a look from before, whose answer waited for the lock.
                    if not ran and stopped() and stopped():
                        ran = True
                        os.killpg(process.pid, signal.SIGKILL)
                        os.kill(pids[0], signal.SIGCONT)
                        os.write(gate[1], b"x")
                    time.sleep(0.001)
            return ran
        assert python_ran_meanwhile(without_lock, 30)
        assert not python_ran_meanwhile(with_lock, 0.5)
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
        told, pressed = os.pipe(), os.pipe()
        def body():
            os.write(told[1], b"%d " % os.getpid())
            os.read(pressed[0], 1)
            time.sleep(0.5)  # the terminal sends the signal a moment later
            results.append("went on")
        def press():
            pid = int(os.read(told[0], 20))
            assert os.tcgetpgrp(slave) == os.getpgid(pid) == os.getpgrp()
            while not settled(pid): pass
            os.write(master, b"\\x03")
            os.write(pressed[1], b"x")
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

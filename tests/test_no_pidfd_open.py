"""Tasks where pidfd_open is filtered: by pid as long as nobody else reaps them, and a clear error for the rest."""

from __future__ import annotations

import pytest

from test_fallbacks import WORLD, check


@pytest.fixture(params=["ENOSYS", "EPERM"])
def world(request: pytest.FixtureRequest) -> str:
    return WORLD + f"seccomp.refuse('pidfd_open', errno.{request.param})\n" + HELPERS


HELPERS = """
def refuses(what, *words):
    try: what()
    except UnsupportedOperation as error: assert all(word in str(error) for word in words), error
    else: raise AssertionError("no error")
"""


def test_copied_tasks_give_results_and_statuses(world: str) -> None:
    check(
        """
task = clone(os.getpid)
assert task.result(10) == task.pid != os.getpid()
status = task.wait(10)
assert (status.code, status.lost) == (0, False) and status.rusage
assert clone(sys.exit, 3).wait(10).code == 3
def fail(): raise LookupError("mine")
assert isinstance(clone(fail).exception(10), LookupError)
assert clone(os.abort).wait(10).signal == signal.SIGABRT
assert call(bytes, 1 << 22) == bytes(1 << 22)
refuses(task.fileno, "pidfd_open", "filtered")
nothing_left()
""",
        world,
    )


def test_copied_tasks_are_waited_for_and_ended(world: str) -> None:
    check(
        """
task = clone(time.sleep, 100)
began = time.monotonic()
try: task.result(0.2)
except TimeoutError: pass
else: raise AssertionError("a result")
assert 0.15 < time.monotonic() - began < 5
assert not task.done() and task.status is None
task.send_signal(0)
task.send_signal(signal.SIGSTOP)
until(lambda: children_of(os.getpid()).get(task.pid) == "T", "stopped")
task.send_signal(signal.SIGCONT)
task.kill()
assert task.status.signal == signal.SIGKILL
try: task.send_signal(0)
except ProcessLookupError: pass
else: raise AssertionError("it has ended")
with clone(time.sleep, 0.1) as task: pass
assert task.status.code == 0
def until_told():
    try: time.sleep(100)
    finally: os.write(1, b"finally")
task = clone(until_told, stdout=CAPTURE)
until(lambda: "nanosleep" in open(f"/proc/{task.pid}/wchan").read(), "it sleeps")
task.terminate(5)
assert task.stdout == b"finally" and task.status.signal == signal.SIGTERM, (task.stdout, task.status)
nothing_left()
""",
        world,
    )


def test_one_that_somebody_else_has_reaped_is_never_another_process(world: str) -> None:
    check(
        """
task = clone(int)
os.waitpid(task.pid, 0)
try: task.send_signal(signal.SIGKILL)
except ProcessLookupError: pass
else: raise AssertionError("sent")
assert task.result(10) == 0, "its page is there"
assert (task.wait(10).source, task.status.code) == ("record", 0), "its own word"
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
assert clone(sys.exit, 3).wait(10).code == 3
assert clone(os.abort).wait(10).lost
nothing_left()
""",
        world,
    )


def test_copies_of_other_forms(world: str) -> None:
    check(
        """
def body(): return os.getpid()
task = clone(body, flags="VFORK")  # by relay
assert task.result(10) == task.pid and task.wait(10).code == 0
refuses(task.fileno, "pidfd_open")
task = clone(time.sleep, 100, flags="CLEAR_SIGHAND")
task.kill()
assert task.status.signal == signal.SIGKILL
task = clone(body, bare=True)  # which has its pidfd from birth
assert os.readlink(f"/proc/self/fd/{task.fileno()}").startswith("anon_inode:[pidfd]")
assert task.result(10) == task.pid and task.wait(10).code == 0
task = fork()
if task is None: os._exit(6)
assert task.result(10) == 6
refuses(task.fileno, "pidfd_open")
nothing_left()
""",
        world,
    )


def test_a_failed_setup_is_reaped(world: str) -> None:
    check(
        """
try: clone(int, setup=ChildSetup(cwd="/no/such"))
except StartError as error: assert error.step == "chdir"
else: raise AssertionError("started")
nothing_left()
""",
        world,
    )


def test_forgotten_ones_leave_no_zombies(world: str) -> None:
    check(
        """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
for _ in range(10): clone(int)
until(lambda: set(children_of(os.getpid()).values()) <= {"Z"}, "all ended")
task = clone(int); task.wait(10); del task
clone(int).wait(10)
nothing_left()
""",
        world,
    )


def test_tasks_that_share_memory(world: str) -> None:
    check(
        """
for flags in ("VM|FILES", "VM|FILES|VFORK", "VM"):
    assert call(os.getpid, flags=flags) != os.getpid()
reading, _ = os.pipe()
task = clone(os.read, reading, 1, flags=SHARED)
refuses(task.fileno, "pidfd_open", "exit_signal=SIGCHLD")
task.send_signal(0)
task.kill()
assert task.done()
task = clone(time.sleep, 100, flags=SHARED)
task.terminate()
assert task.status.code == 143
task = clone(os.getpid, flags=SHARED, exit_signal=signal.SIGCHLD)
assert os.readlink(f"/proc/self/fd/{task.fileno()}").startswith("anon_inode:[pidfd]")
assert os.wait()[0] == task.result(10)
import ctypes
try: call(ctypes.string_at, 1, flags=SHARED)
except TaskDied as died: assert died.signal == signal.SIGSEGV
else: raise AssertionError("it lives")
nothing_left()
""",
        world,
    )


def test_threads_ring_an_eventfd(world: str) -> None:
    check(
        """
import select
go = threading.Event()
task = clone(go.wait, flags=THREAD)
fd = task.fileno()
assert "eventfd" in os.readlink(f"/proc/self/fd/{fd}")
assert not select.select([fd], [], [], 0)[0]
go.set()
assert select.select([fd], [], [], 10)[0]
assert task.result(10) is True
go.clear()
task = clone(go.wait, flags=THREAD & ~F.FILES)
refuses(task.fileno, "pidfd_open")
go.set()
assert task.result(10) is True
""",
        world,
    )


def test_programs_have_a_pidfd_from_birth(world: str) -> None:
    check(
        """
task = clone(["sh", "-c", "exit 4"])
assert os.readlink(f"/proc/self/fd/{task.fileno()}").startswith("anon_inode:[pidfd]")
assert task.result(10) == 4
task = clone(["sleep", "100"])
task.kill()
assert task.status.signal == signal.SIGKILL
nothing_left()
""",
        world,
    )


@pytest.mark.root
def test_what_needs_one_of_the_creator_says_so(world: str) -> None:
    check(
        """
for attempt in (lambda: clone(["true"], flags="NEWPID", setup=ChildSetup(parent_death_signal=signal.SIGKILL)),
                lambda: clone(int, flags="VM|FILES|NEWPID")):
    try: attempt()
    except StartError as error: assert error.step == "pidfd_open" and "filtered" in error.advice, error
    else: raise AssertionError("started")
nothing_left()
""",
        world,
    )


def test_awaiting_and_executors(world: str) -> None:
    check(
        """
import asyncio
async def wait_for(flags): return await clone(int, flags=flags)
assert asyncio.run(wait_for(SHARED)) == asyncio.run(wait_for(THREAD)) == 0, "by a bell"
async def wait_for_a_copy():
    with clone(time.sleep, 60) as task: await task  # which has not ended yet
refuses(lambda: asyncio.run(wait_for_a_copy()), "pidfd_open")
nothing_left()
with Executor(flags=PROCESS) as executor:
    refuses(executor.submit(int).result, "pidfd_open")
with Executor(flags=THREAD) as executor:
    assert executor.submit(int).result(10) == 0
nothing_left()
""",
        world,
    )


def test_neither_clone3_nor_pidfd_open(world: str) -> None:
    check(
        """
seccomp.refuse("clone3", errno.ENOSYS)
for flags in (PROCESS, SHARED, THREAD, "VM|VFORK"): assert call(int, flags=flags) == 0
assert call(["true"]) == 0
task = clone(time.sleep, 100)
task.kill()
assert task.status.signal == signal.SIGKILL
nothing_left()
""",
        world,
    )

"""The tracer's loop: every kind of stop, told and passed on as it should be."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys

import pytest
from scripts import PRELUDE, Traced, python

from taskclone.errors import StartError
from taskclone.tracer.apis import body_program
from taskclone.tracer.records import Call, End, Exec

pytestmark = pytest.mark.usefixtures("nothing_left")


def born_and_ended(traced: Traced) -> tuple[list[int], list[int]]:
    born = [call.child for call in traced.calls if call.child]
    return sorted([traced.program or 0, *born]), sorted(end.tid for end in traced.ends)


def test_a_program_that_ends_at_once() -> None:
    traced = Traced(*body_program())
    assert traced.out == f"body {traced.program} {traced.program}\n"
    assert traced.records == [Exec(traced.program or 0, traced.program or 0, "c_api"), End(traced.program or 0, 0)]


def test_the_status_of_the_program() -> None:
    assert Traced(body_program()[0]).status == 2 << 8
    assert Traced("/bin/sh", "-c", "kill -9 $$").status == signal.SIGKILL


def test_tasks_that_die_at_once() -> None:
    """Killed by themselves, and by whoever knows their id before they have run."""
    traced = python("""
for number in range(200):
    pid = os.fork()
    if not pid: os.kill(os.getpid(), signal.SIGKILL)
    if number % 2: os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
""")
    assert len(traced.calls) == 200
    born, ended = born_and_ended(traced)
    assert born == ended
    assert {end.status for end in traced.ends[:-1]} == {signal.SIGKILL}


def test_an_end_is_told_after_its_birth() -> None:
    traced = python("""
def make():
    for _ in range(100):
        thread = threading.Thread(target=int)
        thread.start(); thread.join()
makers = [threading.Thread(target=make) for _ in range(8)]
for maker in makers: maker.start()
for maker in makers: maker.join()
""")
    assert len(traced.calls) == 808
    assert born_and_ended(traced)[0] == born_and_ended(traced)[1]
    seen = {traced.program}
    for item in traced.records:
        if isinstance(item, Call):
            seen.add(item.child)
        elif isinstance(item, End):
            assert item.tid in seen


def test_many_live_at_a_time() -> None:
    """More than the table of tasks has room for at first, and they end in another order than they began."""
    traced = python("""
children = []
for _ in range(30):
    pid = os.fork()
    if not pid: signal.pause()
    children.append(pid)
locks = []
threading.stack_size(1 << 16)
for _ in range(150):
    lock = threading.Lock(); lock.acquire(); locks.append(lock)
    threading.Thread(target=lock.acquire).start()
for lock in locks[::3] + locks[1::3] + locks[2::3]: lock.release()
for pid in children[::2] + children[1::2]:
    os.kill(pid, signal.SIGTERM); os.waitpid(pid, 0)
""")
    assert len(traced.calls) == 180
    assert born_and_ended(traced)[0] == born_and_ended(traced)[1]


def test_tasks_that_stop_often_do_not_keep_it_from_the_others() -> None:
    """Each gets on as fast as any other. wait4 looks at the latest first, and the program itself is the oldest."""
    traced = python("""
counts = memoryview(mmap.mmap(-1, 48 * 8)).cast("Q")
children = []
for number in range(48):
    pid = os.fork()
    if not pid:
        while True: os.getppid(); counts[number] += 1
    children.append(pid)
before = list(counts)
for _ in range(500): os.getppid()
say(*(now - then for then, now in zip(before, counts)))
for pid in children:
    os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
""")
    counts = [int(word) for word in traced.out.split()]
    assert len(counts) == len(traced.calls) == 48
    assert max(counts) < 2500  # who is kept from it, is so for ever


def test_signals_reach_the_program() -> None:
    traced = python("""
seen = []
for number in (signal.SIGUSR1, signal.SIGTRAP, signal.SIGCHLD, signal.SIGCONT):
    signal.signal(number, lambda n, f: seen.append(n))
    os.kill(os.getpid(), number)
say(*map(int, seen))
""")
    numbers = (signal.SIGUSR1, signal.SIGTRAP, signal.SIGCHLD, signal.SIGCONT)
    assert traced.out.split() == [str(int(number)) for number in numbers]


def test_the_program_has_the_callers_signals() -> None:
    """Its mask; what is ignored stays ignored, but for the two that the interpreter ignores for itself."""
    script = (
        "import signal; print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])), "
        "*(signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)))"
    )
    pid = os.fork()
    if not pid:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2, signal.SIGTERM})
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            out = Traced(sys.executable, "-c", script).out
            os._exit(0 if out == "12 15 True True False\n" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_stopped_group_stays_stopped_until_it_is_continued() -> None:
    traced = python("""
r, w = os.pipe()
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGSTOP)
    os.read(r, 1)
    os._exit(7)
_, status = os.waitpid(pid, os.WUNTRACED)
say(os.WIFSTOPPED(status), os.WSTOPSIG(status) == signal.SIGSTOP)
say(os.waitpid(pid, os.WNOHANG | os.WUNTRACED))
os.kill(pid, signal.SIGCONT)
_, status = os.waitpid(pid, os.WCONTINUED)
say(os.WIFCONTINUED(status))
os.write(w, b"x")
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""")
    assert traced.out.splitlines() == ["True True", "(0, 0)", "True", "7"]


def test_execve_by_another_thread_than_the_leader() -> None:
    """It goes on under the leader's id, and no end of the leader is ever seen."""
    program = body_program()
    traced = python(f"""
others = [threading.Thread(target=threading.Event().wait) for _ in range(3)]
for other in others: other.start()
threading.Thread(target=os.execv, args=({program[0]!r}, {program!r})).start()
threading.Event().wait()
""")
    first, second = traced.execs
    assert first.former == first.tid == traced.program
    assert (second.tid, second.name) == (traced.program, "c_api")
    assert second.former == traced.calls[-1].child != second.tid
    assert traced.out == f"body {traced.program} {traced.program}\n"
    ended = [end.tid for end in traced.ends]
    assert ended.count(traced.program or 0) == 1
    assert set(ended) == {traced.program, *(call.child for call in traced.calls[:-1])}


def test_a_vfork_child_that_runs_a_program() -> None:
    traced = python(f"import subprocess; subprocess.run({body_program()!r}, check=True)")
    (call,) = traced.calls
    (name,) = [item.name for item in traced.execs if item.tid == call.child]
    assert name == "c_api"


def test_an_untraced_task_is_seen_to_be_made_and_no_more() -> None:
    traced = python("""
from taskclone import clone
say(clone(os.getpid, flags="VM|FILES|UNTRACED").result())
""")
    (call,) = (call for call in traced.calls if not call.followed)
    assert call.child == int(traced.out)
    assert call.flags & call.flags.UNTRACED
    assert call.child not in {end.tid for end in traced.ends}
    assert all(other.followed for other in traced.calls if other is not call)


def test_a_program_of_its_own_kind_of_orphans() -> None:
    """A grandchild whose parent has ended is reaped, and its end is told once."""
    traced = python("""
ends = os.pipe()
if not os.fork():
    if not os.fork():
        os.close(ends[1])
        os.read(ends[0], 1)
        os._exit(5)
    os._exit(0)
os.wait()
""")
    assert born_and_ended(traced)[0] == born_and_ended(traced)[1]
    assert sorted(end.status >> 8 for end in traced.ends) == [0, 0, 5]


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(StartError, match="execve: No such file") as raised:
        Traced("/no/such/program")
    assert (raised.value.step, raised.value.errno) == ("execve", errno.ENOENT)


def test_the_program_has_its_streams_and_nothing_else_open() -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    os.set_inheritable(write_end, True)
    script = "say(*sorted(os.listdir('/proc/self/fd')))"
    try:
        out = python(script).out
    finally:
        os.close(read_end)
        os.close(write_end)
    # The directory itself, and what ctypes keeps for its callbacks.
    alone = subprocess.run([sys.executable, "-P", "-c", PRELUDE + script], capture_output=True, text=True, check=True)
    assert out == alone.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="int $0x80 is of x86")
def test_a_call_by_the_numbers_of_another_machine() -> None:
    """A 64-bit program may make the system calls of i386, whose fork is number 2, vfork 190 and clone 120."""
    traced = python("""
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("53" "89f8" "89f3" "31c9" "31d2" "31f6" "31ff" "cd80" "5b" "c3"))  # push rbx; eax, ebx = args
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)
for arguments in ((2, 0), (120, 0x400 | signal.SIGURG)):
    pid = call(*arguments)
    if pid < 0: say(pid); break
    if not pid: os._exit(0)
    os.waitpid(pid, 0x40000000)
""")
    if traced.out == f"-{38}\n":
        pytest.skip("this kernel has no system calls of i386 (CONFIG_IA32_EMULATION)")
    assert [(call.system_call, int(call.flags), call.exit_signal) for call in traced.calls] == [
        ("fork", 0, signal.SIGCHLD),
        ("clone", 0x400, signal.SIGURG),
    ]

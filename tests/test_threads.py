"""Threads: what they have of their own, and what the module threading sees of them."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from creator import run
from proc import held, shared_between, until
from taskclone import THREAD, CloneFlags, FlagError, Plan, UnsupportedOperation, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
HOW = pytest.mark.parametrize("thread", [THREAD, THREAD | F.IO], ids=["pthread", "clone"])
"""A thread of pthread_create's, and one whose task the caller has cloned."""
OWN = [F.FS, F.FILES, F.SYSVSEM, F.FS | F.FILES, F.FS | F.SYSVSEM, F.FILES | F.SYSVSEM, F.FS | F.FILES | F.SYSVSEM]


@pytest.mark.parametrize("own", OWN, ids=str)
def test_a_thread_has_of_its_own_what_its_flags_leave_out(own: F) -> None:
    kinds = {"VM", "SIGHAND"} | {flag.name for flag in (F.FS, F.FILES, F.SYSVSEM) if not own & flag}
    with held(THREAD & ~own) as task:
        # Neither has an I/O context, which kcmp calls the same.
        assert shared_between(os.getpid(), task.tid) - {"IO"} == kinds
        assert task.pid == os.getpid()
        assert task.granted.flags == THREAD & ~own


@HOW
def test_a_thread_without_fs_has_its_own_directory_and_umask(thread: F, tmp_path: Path) -> None:
    here, mask = os.getcwd(), os.umask(0o22)

    def move() -> tuple[str, int]:
        os.chdir(tmp_path)
        return os.getcwd(), os.umask(0o77)

    try:
        assert call(move, flags=thread & ~F.FS) == (str(tmp_path), 0o22)
        assert os.getcwd() == here
        assert os.umask(0o22) == 0o22
        assert call(move, flags=thread) == (str(tmp_path), 0o22)
        assert os.getcwd() == str(tmp_path)
    finally:
        os.chdir(here)
        os.umask(mask)


@HOW
def test_a_thread_without_files_has_its_own_descriptors(thread: F) -> None:
    read_end, write_end = os.pipe()
    try:
        call(os.close, read_end, flags=thread & ~F.FILES)
        os.write(write_end, b"x")
        assert os.read(read_end, 1) == b"x"
    finally:
        os.close(read_end)
        os.close(write_end)


def test_an_unshare_that_fails_is_a_start_error_and_the_body_never_runs() -> None:
    code, out, err = run("""
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
ran = []
try:
    clone(ran.append, 1, flags=THREAD | CloneFlags.NEWUTS)
except StartError as error:
    say(error.step, error.errno, ran, threading.active_count())
""")
    assert (code, out, err) == (0, f"unshare {errno.EPERM} [] 1\n", "")


@pytest.mark.root
def test_a_thread_in_a_new_uts_namespace() -> None:
    name = os.uname().nodename

    def rename() -> str:
        import socket

        socket.sethostname("of-a-thread")
        return os.uname().nodename

    assert call(rename, flags=THREAD | F.NEWUTS) == "of-a-thread"
    assert os.uname().nodename == name


@pytest.mark.parametrize("more", [F.NEWUSER, F.NEWPID, F.CLEAR_SIGHAND, F.DETACHED], ids=str)
def test_what_a_thread_cannot_have_is_refused_by_name(more: F) -> None:
    with pytest.raises(FlagError, match=f"CLONE_{more.name}"):
        clone(os.getpid, flags=THREAD & ~F.FS | more)


# ---- the module threading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [THREAD, THREAD | F.IO], ids=["pthread", "clone"])
def test_threading_knows_the_thread_while_it_runs(flags: F) -> None:
    seen: list[threading.Thread] = []
    with held(flags, body=lambda: seen.append(threading.current_thread()), name="worker") as task:
        until(lambda: seen, "the body runs")
        (thread,) = seen
        assert thread in threading.enumerate()
        assert thread.name == "worker"
        assert thread.native_id == task.tid
        assert thread.ident in sys._current_frames()
        assert thread.is_alive()
        assert not thread.daemon
        assert "worker" in repr(thread)
        with pytest.raises(RuntimeError):
            thread.start()
        thread.join(0)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    assert thread not in threading.enumerate()


@HOW
def test_a_thread_cannot_join_itself(thread: F) -> None:
    with pytest.raises(RuntimeError, match="current thread"):
        call(lambda: threading.current_thread().join(), flags=thread)


@pytest.fixture
def hooks() -> Iterator[list[str]]:
    seen: list[str] = []

    def hook(frame: object, event: str, arg: object) -> None:
        seen.append(event)

    threading.settrace(hook)
    threading.setprofile(hook)
    try:
        yield seen
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
        threading.setprofile(None)


@pytest.mark.parametrize(
    "flags",
    [THREAD, THREAD | F.IO, F.VM | F.FILES, F.VM | F.FILES | F.VFORK],
    ids=["THREAD", "THREAD|IO", "SHARED", "place"],
)
def test_trace_and_profile_hooks_are_installed(hooks: list[str], flags: F) -> None:
    call(lambda: None, flags=flags)
    assert hooks.count("call") >= 2


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # 3.15 raises it from the fork
@HOW
def test_a_body_may_fork_and_start_threads(thread: F) -> None:
    def body() -> tuple[int, list[str]]:
        inner = threading.Thread(target=int)
        inner.start()
        inner.join()
        pid = os.fork()
        if pid == 0:
            os._exit(len(threading.enumerate()))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), []

    assert call(body, flags=thread)[0] == 1


@HOW
def test_a_fork_of_the_creator_leaves_the_threads_behind(thread: F) -> None:
    code, out, err = run(
        f"KIND = {int(thread)}"
        """
import select
r, w = os.pipe()
task = clone(os.read, r, 1, flags=KIND)
task.tid
pid = os.fork()
if pid == 0:
    say(len(threading.enumerate()), call(int, 7, flags=KIND))
    try:
        task.result(1)
    except ChildProcessError as error:
        say("refused")
    os._exit(0)
os.waitpid(pid, 0)
os.write(w, b"x")
say(task.result())
""",
        "-W",
        "ignore",
    )
    assert (code, out.splitlines(), err) == (0, ["1 7", "refused", "b'x'"], "")


@HOW
def test_the_interpreter_waits_for_a_thread_and_not_for_a_daemon(thread: F) -> None:
    code, out, err = run(
        f"KIND = {int(thread)}"
        + """
import atexit
gate = threading.Event()
def body():
    gate.wait()
    time.sleep(0.05)
    say("body ends")
task = clone(body, flags=KIND)
atexit.register(say, "atexit")
stuck = clone(time.sleep, 0.5, flags=KIND, daemon=True)
never = clone(threading.Event().wait, flags=KIND, daemon=True)
gate.set()
say("main ends")
"""
    )
    assert (code, out.splitlines()) == (0, ["main ends", "body ends", "atexit"]), err


@HOW
def test_many_threads_at_once_and_in_a_row(thread: F) -> None:
    tasks = [clone(int, n, flags=thread) for n in range(200)]
    assert [task.result(10) for task in tasks] == list(range(200))
    plan = Plan(thread & ~F.FS)
    assert sum(plan.start(int, n).result(10) for n in range(500)) == sum(range(500))


@HOW
def test_stack_size_is_the_threads_own(thread: F) -> None:
    def stack_of_this_thread() -> int:
        # Not by its mapping: where libc guards it by madvise (glibc 2.42), that may be its neighbour's too.
        attributes, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
        low, size = ctypes.c_void_p(), ctypes.c_size_t()
        assert libc.pthread_getattr_np(ctypes.c_ulong(threading.get_ident()), attributes) == 0
        assert libc.pthread_attr_getstack(attributes, ctypes.byref(low), ctypes.byref(size)) == 0
        return size.value

    before = threading.stack_size()
    # More than the stacks that the C library keeps from earlier threads and hands out again.
    size = call(stack_of_this_thread, flags=thread, stack_size=48 << 20)
    assert 48 << 20 <= size < 49 << 20
    assert threading.stack_size() == before


@HOW
def test_a_signal_goes_to_the_thread(thread: F) -> None:
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with held(thread) as task:
            task.send_signal(signal.SIGUSR1)
            with pytest.raises(UnsupportedOperation):
                task.send_signal(signal.SIGTERM)
        with pytest.raises(ProcessLookupError):
            task.send_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, old)


# ---- what a thread with something of its own may not do -------------------------------------------------------------


@pytest.mark.parametrize("flags", [F.VM | F.FILES, THREAD], ids=["SHARED", "THREAD"])
def test_a_thread_with_its_own_directory_starts_nothing_that_would_inherit_it(flags: F, tmp_path: Path) -> None:
    def body() -> None:
        os.chdir(tmp_path)
        call(os.getcwd, flags=flags)

    with pytest.raises((UnsupportedOperation, RuntimeError), match="of its own"):
        call(body, flags=THREAD & ~F.FS)
    assert call(os.getcwd, flags=flags) == os.getcwd()


@pytest.mark.filterwarnings("ignore:process .* has other threads:DeprecationWarning")
@HOW
def test_a_thread_with_its_own_files_starts_no_child(thread: F) -> None:
    for body in (lambda: call(int), lambda: call(["true"])):
        with pytest.raises(UnsupportedOperation, match="file table of its own"):
            call(body, flags=thread & ~F.FILES)


@HOW
def test_a_descriptor_of_the_creator_is_not_closed_by_a_thread_with_its_own_files(thread: F) -> None:
    with held(thread & ~F.FILES) as task:
        fd = task.fileno()
        del task
    until(lambda: not os.path.exists(f"/proc/self/fd/{fd}"), "the creator's own thread closes it")


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # 3.15 raises it from the fork
def test_multiprocessing_forks_in_a_body() -> None:
    import multiprocessing

    def body() -> int | None:
        process = multiprocessing.get_context("fork").Process(target=int)
        process.start()
        process.join(10)
        return process.exitcode

    assert call(body, flags=THREAD) == 0


@HOW
def test_a_copy_made_beside_a_thread_is_warned_of(thread: F) -> None:
    with held(thread), pytest.warns(DeprecationWarning, match="other threads"):
        call(int)


@HOW
def test_current_thread_has_its_ids_from_the_first_instruction(thread: F) -> None:
    def ids() -> tuple[int | None, int | None]:
        me = threading.current_thread()
        return me.ident, me.native_id

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        seen = [call(ids, flags=thread) for _ in range(500)]
    finally:
        sys.setswitchinterval(interval)
    assert all(ident and native for ident, native in seen)


def test_a_thread_that_is_started_too_late_is_refused() -> None:
    script = """
import atexit
def late():
    try:
        clone(print, "lost", flags=THREAD).wait(5)
    except UnsupportedOperation:
        print("refused")
atexit.register(late)  # before taskclone's own, so it runs after them
from taskclone import *
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr

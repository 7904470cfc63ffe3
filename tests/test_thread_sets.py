"""Every set with THREAD: carried as it is written, or refused for a reason of the kernel's."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import select
import signal
import threading
import time
from pathlib import Path

import pytest

from creator import run
from proc import Kcmp, held, may_make_user_namespaces, shared_between, something_to_share, state_of, threads, until
from taskclone import THREAD, CloneFlags, FlagError, Plan, StartError, Task, call, clone
from taskclone.flags import ROWS
from taskclone.routes import thread as route
from taskclone.rules import Context, broken

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
CORE = F.VM | F.SIGHAND | F.THREAD
OWN = F.FS | F.FILES | F.SYSVSEM
POINTERS = F.SETTLS | F.PARENT_SETTID | F.CHILD_SETTID | F.CHILD_CLEARTID
NAMESPACES = {
    "mnt": F.NEWNS, "uts": F.NEWUTS, "ipc": F.NEWIPC, "net": F.NEWNET, "cgroup": F.NEWCGROUP,
    "time_for_children": F.NEWTIME,
}  # fmt: skip
BY_CLONE = [F.IO, F.UNTRACED, F.PTRACE, F.PARENT, F.CHILD_SETTID, F.VFORK]


def own_sets() -> list[F]:
    """What a thread may leave out, in every mixture."""
    parts = list(F(OWN))
    return [F(sum(some)) for n in range(len(parts) + 1) for some in itertools.combinations(parts, n)]


def legal_sets() -> list[F]:
    """The core with each mixture of what may be left out, and one or two flags beside it."""
    others = [F(0), *(flag for flag in ROWS if not flag & (CORE | OWN))]
    beside = {first | second for first, second in itertools.combinations_with_replacement(others, 2)}
    sets = [CORE | own | more for own in own_sets() for more in sorted(beside)]
    return [flags for flags in sets if not broken(flags, Context(missing=("cgroup",)))]


def test_every_legal_set_is_carried() -> None:
    sets = legal_sets()
    assert len(sets) > 400
    for flags in sets:
        route.check(Plan(flags))


def test_every_legal_set_starts_and_ends_or_lacks_a_privilege() -> None:
    """Each start makes the kernel say whether it was legal; one that it refuses has run no body."""
    ran: list[F] = []
    refused: list[tuple[F, int | None]] = []
    for flags in legal_sets():
        if flags & F.NEWNET:  # a network namespace takes long to go
            continue
        try:
            task: Task[None] = clone(ran.append, flags, flags=flags)
        except StartError as error:
            refused.append((flags, error.errno))
            continue
        assert task.result(10) is None
        assert ran.pop() == flags
        assert task.granted.flags | POINTERS == flags | POINTERS
    assert not ran
    assert bool(refused) == (os.geteuid() != 0)
    privileged = sum(NAMESPACES.values(), F(0))
    assert [item for item in refused if item[1] != errno.EPERM or not item[0] & privileged] == []


# ---- what is shared, and with whom ----------------------------------------------------------------------------------


@pytest.mark.parametrize("own", own_sets(), ids=str)
def test_a_cloned_thread_shares_what_its_flags_say(own: F) -> None:
    flags = (THREAD | F.IO) & ~own
    with something_to_share(), held(flags) as task:
        assert shared_between(os.getpid(), task.tid) == {kind.name for kind in Kcmp if flags & F[kind.name]}
        assert task.pid == os.getpid()
        assert task.emulated == {}


def test_without_io_a_thread_does_not_share_the_io_context() -> None:
    for flags in (THREAD, THREAD | F.UNTRACED):
        with something_to_share(), held(flags) as task:
            assert "IO" not in shared_between(os.getpid(), task.tid)


def test_the_io_context_is_that_of_the_thread_which_starts_it() -> None:
    seen: list[tuple[bool, bool]] = []

    def caller() -> None:
        with something_to_share(), held(THREAD | F.IO) as task:
            here = threading.get_native_id()
            seen.append(("IO" in shared_between(here, task.tid), "IO" in shared_between(os.getpid(), task.tid)))

    with something_to_share():
        thread = threading.Thread(target=caller)
        thread.start()
        thread.join()
    assert seen == [(True, False)]


def links(tid: int) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{os.getpid()}/task/{tid}/ns/{name}") for name in NAMESPACES}


def check_new_namespace(name: str, more: F) -> None:
    own = {"mnt": F.FS, "ipc": F.SYSVSEM}.get(name, F(0))
    before = links(threading.get_native_id())
    with held(THREAD & ~own | NAMESPACES[name] | more) as task:
        after = links(task.tid)
        assert {kind for kind in NAMESPACES if after[kind] != before[kind]} == {name}
        assert links(threading.get_native_id()) == before
        emulated = {F[flag] for flag in task.emulated}
        assert emulated == (set() if more else {NAMESPACES[name], *own})
    assert links(threading.get_native_id()) == before


NEW = pytest.mark.parametrize("name", NAMESPACES)
BOTH = pytest.mark.parametrize("more", [F(0), F.IO], ids=["pthread", "clone"])


@pytest.mark.root
@NEW
@BOTH
def test_a_new_namespace_is_the_threads_alone(name: str, more: F) -> None:
    check_new_namespace(name, more)


@NEW
@BOTH
def test_in_a_user_namespace_of_its_own_anybody_has_them(name: str, more: F) -> None:
    if not may_make_user_namespaces():
        pytest.skip("this user may not make user namespaces here")
    call(check_new_namespace, name, more, flags=F.NEWUSER)


@pytest.mark.root
def test_a_mount_in_a_thread_is_not_seen_by_others(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    private, mount = 1 << 18 | 1 << 14, os.fsencode(tmp_path)

    def body() -> bool:
        assert libc.mount(None, b"/", None, private, None) == 0, os.strerror(ctypes.get_errno())
        assert libc.mount(b"none", mount, b"tmpfs", 0, None) == 0, os.strerror(ctypes.get_errno())
        (tmp_path / "mine").touch()
        return (tmp_path / "mine").exists()

    for more in (F(0), F.IO):
        assert call(body, flags=THREAD & ~F.FS | F.NEWNS | more)
        assert list(tmp_path.iterdir()) == []


# ---- starts that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [THREAD | F.NEWUTS, THREAD & ~F.FS | F.NEWNS], ids=["NEWUTS", "NEWNS"])
@pytest.mark.parametrize("more", [F(0), F.IO, F.VFORK], ids=["pthread", "clone", "vfork"])
def test_a_start_without_the_privilege_fails_and_leaves_nothing(flags: F, more: F) -> None:
    code, out, err = run(f"""
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
ran = []
try:
    clone(ran.append, 1, flags={int(flags | more)})
except StartError as error:
    say(error.step, error.errno, ran, threading.active_count())
while len(os.listdir("/proc/self/task")) > 1:
    time.sleep(0.001)
say(call(int, 7, flags={int(THREAD | more)}))
""")
    step = "clone3" if more else "unshare"
    assert (code, out.splitlines(), err) == (0, [f"{step} {errno.EPERM} [] 1", "7"], "")


def test_a_stack_that_cannot_be_had_is_a_start_error() -> None:
    code, out, err = run("""
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
for flags in (THREAD, THREAD | CloneFlags.IO):
    try:
        clone(int, flags=flags, stack_size=1 << 30)
    except StartError as error:
        say(error.step, error.errno, call(int, 7, flags=flags, stack_size=1 << 20))
""")
    assert (code, out, err) == (0, f"pthread_create {errno.EAGAIN} 7\n" * 2, "")


# ---- flags that do something ----------------------------------------------------------------------------------------


def test_with_vfork_the_caller_sleeps_until_the_thread_ends() -> None:
    ticks = 0
    ending = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not ending.is_set():
            ticks += 1
            time.sleep(0.0001)

    def body() -> tuple[int, str]:
        before = ticks
        until(lambda: ticks > before, "another thread runs while the caller sleeps")
        return threading.get_native_id(), state_of(caller)

    caller = threading.get_native_id()
    other = threading.Thread(target=tick)
    other.start()
    try:
        task = clone(body, flags=THREAD | F.VFORK)
        assert task.done()
        assert task.result(0) == (task.tid, "D")
        with pytest.raises(ZeroDivisionError):
            clone(lambda: 1 // 0, flags=THREAD | F.VFORK).result(0)
    finally:
        ending.set()
        other.join()


def has_thread_pidfds() -> bool:
    return not broken(THREAD | F.PIDFD, Context())


def test_pidfd_is_that_of_the_thread_from_its_birth() -> None:
    if not has_thread_pidfds():
        with pytest.raises(FlagError, match=r"Linux 6\.9"):
            clone(int, flags=THREAD | F.PIDFD)
        return
    for own in (F(0), F.FILES):
        with held(THREAD & ~own | F.PIDFD) as task:
            info = Path(f"/proc/self/fdinfo/{task.fileno()}").read_text()
            assert f"\nPid:\t{task.tid}\n" in info
            assert task.granted.flags & F.PIDFD
            poll = select.poll()
            poll.register(task.fileno(), select.POLLIN)
            assert poll.poll(0) == []
        assert poll.poll(10_000)


def test_untraced_is_not_seen_by_who_traces_the_caller() -> None:
    """The tracer follows every clone; of its own children it knows, too, those that the kernel hides from it."""
    script = """
from taskclone.tracer.trace import Trace
code = '''
from taskclone import *
def tracer():
    text = open("/proc/thread-self/status").read()
    return text.split("TracerPid:")[1].split()[0] != "0"
print([call(tracer, flags=THREAD | more) for more in (0, CloneFlags.IO, CloneFlags.UNTRACED)])
'''
with open(os.devnull) as none, Trace([sys.executable, "-c", code], streams=(none.fileno(), 1, 2), timeout=15) as trace:
    for _ in trace.records():
        pass
"""
    code, out, err = run(script)
    assert (code, out, err) == (0, "[True, True, False]\n", "")


def test_a_fatal_signal_ends_the_process_as_in_any_thread() -> None:
    for flags in (THREAD, THREAD | F.IO):
        code, out, _ = run(f"""
import ctypes, resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
clone(ctypes.string_at, 0, flags={int(flags)}).wait()
say("not reached")
""")
        assert (code, out) == (-signal.SIGSEGV, "")


# ---- to libc it is a thread like any other --------------------------------------------------------------------------


def libc_view() -> dict[str, object]:
    """What libc has arranged with the kernel for the calling thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    x86 = os.uname().machine == "x86_64"
    head, size = ctypes.c_void_p(), ctypes.c_size_t()
    libc.syscall(274 if x86 else 100, 0, ctypes.byref(head), ctypes.byref(size))  # get_robust_list
    place = ctypes.POINTER(ctypes.c_int)()
    get_tid_address = 40
    found = libc.prctl(get_tid_address, ctypes.byref(place))
    area = ctypes.create_string_buffer(128)
    aligned = ctypes.addressof(area) + -ctypes.addressof(area) % 32
    taken = libc.syscall(334 if x86 else 293, ctypes.c_void_p(aligned), 32, 0, 0x53053053)  # rseq
    why = ctypes.get_errno() if taken else 0
    return {
        "robust list": head.value is not None and head.value - threading.get_ident() > 0,
        # The kernel clears it at the end: libc's copy of the id, or (glibc 2.43) 3 for a thread that nobody joins.
        "id": found == 0 and place.contents.value in (threading.get_native_id(), 3),
        "cleared": ctypes.cast(place, ctypes.c_void_p).value - threading.get_ident(),
        "id of libc": libc.pthread_kill(ctypes.c_void_p(threading.get_ident()), 0),
        "rseq taken": why == errno.EINVAL,
        "distance": (head.value or 0) - threading.get_ident(),
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
    }


def test_libc_has_its_own_of_a_cloned_thread() -> None:
    expected = call(libc_view, flags=THREAD)
    assert expected["robust list"]
    for more in BY_CLONE:
        assert call(libc_view, flags=THREAD | more) == expected, more


def test_a_cloned_thread_is_one_task() -> None:
    before = threads()
    with held(THREAD | F.IO) as task:
        until(lambda: task.tid and threads() - before == {task.tid}, "the task that pthread_create made is gone")


def test_a_signal_by_its_ident_reaches_a_cloned_thread() -> None:
    def body() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        ready.append(threading.get_ident())
        return signal.sigwait([signal.SIGUSR1])

    ready: list[int] = []
    task = clone(body, flags=THREAD | F.IO)
    until(lambda: ready, "the body runs")
    signal.pthread_kill(ready[0], signal.SIGUSR1)
    assert task.result(10) == signal.SIGUSR1


@pytest.mark.root
def test_a_change_of_user_reaches_a_cloned_thread() -> None:
    """libc has every thread change its own, by a signal to the id that it knows."""
    code, out, err = run("""
r, w = os.pipe()
task = clone(os.read, r, 1, flags=THREAD | CloneFlags.IO)
task.tid
os.setresuid(65534, 65534, 65534)
users = set()
for tid in os.listdir("/proc/self/task"):
    text = open(f"/proc/self/task/{tid}/status").read()
    users.add(tuple(text.split("Uid:")[1].split()[:4]))
os.write(w, b"x")
say(users, task.result(5))
""")
    assert (code, out, err) == (0, f"{ {('65534',) * 4} } b'x'\n", "")


def test_thread_specific_data_is_destroyed_at_its_end() -> None:
    libc = ctypes.CDLL(None)
    key = ctypes.c_uint()
    gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
    # close(2) on the value: a destructor that is no Python, and can be seen.
    close = ctypes.cast(libc.close, ctypes.c_void_p)
    assert libc.pthread_key_create(ctypes.byref(key), close) == 0
    try:
        for flags in (THREAD, THREAD | F.IO):
            fd = os.dup(gate_read)
            assert call(libc.pthread_setspecific, key, ctypes.c_void_p(fd), flags=flags) == 0
            until(lambda: not os.path.exists(f"/proc/self/fd/{fd}"), "the destructor runs")  # noqa: B023
    finally:
        libc.pthread_key_delete(key)
        os.close(gate_read)
        os.close(gate_write)


def test_without_the_kernels_word_where_libc_has_the_id() -> None:
    here = str(Path(__file__).parent)
    code, out, err = run(f"""
sys.path.insert(0, {here!r})
import errno, seccomp
seccomp.refuse("prctl", errno.EINVAL, 40)  # PR_GET_TID_ADDRESS
say(call(threading.get_native_id, flags=THREAD | CloneFlags.IO) != os.getpid())
""")
    assert (code, out, err) == (0, "True\n", "")

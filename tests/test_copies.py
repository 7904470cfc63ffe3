"""The forms of a copy on a live kernel: what each shares, who the task is, how it ends, what it believes of itself."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from copyforms import FORMS, IN_NAMESPACES, by_form
from proc import Kcmp, children_of, held, shared_between
from taskclone import CloneFlags, FlagError, OutcomeError, Plan, TaskDied, call, clone
from taskclone.flags import ROWS
from taskclone.rule import running_kernel

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags


# ---- outcomes -------------------------------------------------------------------------------------------------------


@by_form()
def test_what_a_body_leaves_comes_back(form: str) -> None:
    fields = FORMS[form]
    assert call(divmod, 17, 5, **fields) == (3, 2)
    assert call(lambda: None, **fields) is None
    assert call(bytes, 3_000_000, **fields) == bytes(3_000_000)
    with pytest.raises(LookupError, match="mine"):
        call(_raise, LookupError("mine"), **fields)
    with pytest.raises(TaskDied) as died:
        call(sys.exit, 9, **fields)
    assert died.value.code == 9
    with pytest.raises(OutcomeError, match="lambda"):
        call(lambda: lambda: None, **fields)


def _raise(error: BaseException) -> None:
    raise error


@by_form()
def test_many_one_after_the_other_and_at_once(form: str) -> None:
    plan = Plan(**FORMS[form])
    assert [plan.start(abs, -i).result(20) for i in range(40)] == list(range(40))
    tasks = [plan.start(abs, -i) for i in range(12)]
    assert [task.result(20) for task in tasks] == list(range(12))


def crash() -> None:
    faulthandler.disable()  # pytest's own, whose dump would look as if pytest had crashed
    ctypes.string_at(0)


@by_form()
def test_how_it_ended(form: str) -> None:
    task = clone(os._exit, 7, **FORMS[form])
    assert (task.wait(10).code, task.wait().source) == (7, "wait")
    assert task.wait().rusage.ru_minflt > 0
    task = clone(crash, **FORMS[form])
    assert task.wait(10).signal == signal.SIGSEGV
    with pytest.raises(TaskDied, match="SIGSEGV"):
        task.result()


@by_form()
def test_who_it_is(form: str) -> None:
    def body() -> tuple[int, int, int, int]:
        return os.getpid(), os.getppid(), threading.get_native_id(), len(os.listdir("/proc/self/task"))

    task = clone(body, **FORMS[form])
    if form in ("namespaces", "bare-NEWPID"):
        assert task.result(10)[:3] == (1, 0, 1), "init of its own PID namespace; its creator is not in there"
    else:
        assert task.result(10) == (task.pid, os.getpid(), task.pid, 1)
    assert task.pid > 1
    assert task.route == "copied"


@by_form()
def test_it_is_the_creators_own_child_and_nobody_else_is_left(form: str) -> None:
    with held(**{"flags": 0, **FORMS[form]}) as task:
        assert set(children_of(os.getpid())) == {task.pid}
        fields = Path(f"/proc/{task.pid}/status").read_text()
        assert f"PPid:\t{os.getpid()}\n" in fields


@by_form()
def test_granted_is_what_the_kernel_was_given(form: str) -> None:
    fields = FORMS[form]
    task = clone(int, **fields)
    task.wait(10)
    granted = task.granted
    assert granted.flags & fields.get("flags", 0) == fields.get("flags", 0)
    assert granted.exit_signal == (0 if "bare" in form else signal.SIGCHLD)
    more = {m.name for m in F if m & granted.flags & ~F(fields.get("flags", 0)) and ROWS[m].kind == "share"}
    assert more == ({"PARENT"} if form in ("relay", "namespaces") else set()), "asked for by the one in the middle"
    assert granted.flags & F.CHILD_SETTID
    assert granted.flags & F.CHILD_CLEARTID


# ---- sharing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def _own_undo_list_and_io_context() -> Iterator[None]:
    """kcmp calls two null pointers equal: so this task gets the two things that it may lack."""
    thread = threading.Thread(target=int)  # makes the list of semaphore adjustments
    thread.start()
    thread.join()
    libc = ctypes.CDLL(None, use_errno=True)
    ioprio_set = 251 if os.uname().machine == "x86_64" else 30
    if libc.syscall(ioprio_set, 1, 0, 2 << 13 | 4):
        raise OSError(ctypes.get_errno(), "ioprio_set")
    yield
    libc.syscall(ioprio_set, 1, 0, 0)


@pytest.mark.usefixtures("_own_undo_list_and_io_context")
@pytest.mark.parametrize(
    "names",
    ["", "FILES", "FS", "SYSVSEM", "IO", "FILES FS", "FILES FS SYSVSEM IO", "FILES VFORK", "FILES CLEAR_SIGHAND"],
)
def test_a_bare_copy_shares_what_its_flags_say(names: str) -> None:
    flags = F(0)
    for name in names.split():
        flags |= F[name]
    expected = {kind.name for kind in Kcmp if flags & F[kind.name]}

    def look() -> set[str]:
        return shared_between(os.getppid(), os.getpid())

    assert call(look, flags=flags, bare=True) == expected
    if not flags & F.VFORK:
        with held(flags, bare=True) as task:
            assert shared_between(os.getpid(), task.pid) == expected


@pytest.mark.usefixtures("_own_undo_list_and_io_context")
@by_form("relay", "namespaces")
def test_a_relay_shares_nothing(form: str) -> None:
    with held(**FORMS[form]) as task:
        assert shared_between(os.getpid(), task.pid) == set()


def test_directory_umask_and_descriptors_of_a_bare_copy(tmp_path: Path) -> None:
    here, umask, read_end, write_end = os.getcwd(), os.umask(0o22), *os.pipe()

    def body() -> int:
        os.chdir(tmp_path)
        os.umask(0o77)
        os.close(read_end)
        return os.dup(write_end)

    try:
        duplicate = call(body, flags="FS|FILES", bare=True)
        assert (os.getcwd(), os.umask(umask)) == (str(tmp_path), 0o77)
        assert os.path.sameopenfile(duplicate, write_end)
        os.close(duplicate)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(read_end)
    finally:
        os.chdir(here)
        os.umask(umask)
        os.close(write_end)


NAMESPACES = {
    "mnt": F.NEWNS, "uts": F.NEWUTS, "ipc": F.NEWIPC, "net": F.NEWNET, "cgroup": F.NEWCGROUP, "pid": F.NEWPID,
    "user": F.NEWUSER, "time": F.NEWTIME,
}  # fmt: skip


def links(pid: int | str) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


def other_namespaces(pid: int) -> set[str]:
    theirs, ours = links(pid), links("self")
    return {name for name in NAMESPACES if theirs[name] != ours[name]}


@pytest.mark.root
@pytest.mark.parametrize("fields", [{}, {"bare": True}], ids=["relay", "bare"])
@pytest.mark.parametrize("name", NAMESPACES)
def test_one_namespace_is_new(name: str, fields: dict[str, Any]) -> None:
    with held(NAMESPACES[name], **fields) as task:
        assert other_namespaces(task.pid) == {name}


@IN_NAMESPACES
@pytest.mark.parametrize("fields", [{}, {"bare": True}], ids=["relay", "bare"])
def test_all_namespaces_at_once_as_an_ordinary_user(fields: dict[str, Any]) -> None:
    flags = F(0)
    for flag in NAMESPACES.values():
        flags |= flag
    with held(flags, **fields) as task:
        assert other_namespaces(task.pid) == set(NAMESPACES)


@IN_NAMESPACES
@by_form("namespaces")
def test_a_host_name_of_its_own(form: str) -> None:
    before = os.uname().nodename

    def body() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.sethostname(b"inner", 5) == 0, os.strerror(ctypes.get_errno())
        return os.uname().nodename

    assert call(body, **FORMS[form]) == "inner"
    assert os.uname().nodename == before


@pytest.mark.parametrize("fields", [{}, {"bare": True}], ids=["relay", "bare"])
def test_the_flags_of_linux_7_1(fields: dict[str, Any]) -> None:
    if running_kernel() < (7, 1):
        with pytest.raises(FlagError, match=r"came with Linux 7\.1"):
            clone(int, flags="EMPTY_MNTNS|NEWUSER", **fields)
        return
    status = Path("/proc/self/status")
    assert "NoNewPrivs:\t1" in call(status.read_text, flags="NNP", **fields)
    assert "NoNewPrivs:\t0" in status.read_text()
    assert call(os.listdir, "/", flags="EMPTY_MNTNS|NEWUSER", **fields) == []


@pytest.mark.parametrize("fields", [{"flags": "CLEAR_SIGHAND"}, {"flags": "CLEAR_SIGHAND", "bare": True}], ids=str)
def test_cleared_handlers_are_cleared_for_the_interpreter_too(fields: dict[str, Any]) -> None:
    def body() -> tuple[Any, Any, int]:
        status = Path("/proc/self/status").read_text()
        caught = int(status.split("SigCgt:\t")[1].split()[0], 16)
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1), caught

    old = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        int_handler, usr1_handler, caught = call(body, **fields)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert (int_handler, usr1_handler) == (signal.SIG_DFL, signal.SIG_DFL)
    assert caught & ~(3 << 31) == 1 << (signal.SIGTERM - 1), "which ends a task; 32 and 33 are libc's"


# ---- what libc believes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> Any:
    if "TASKCLONE_BUILD" not in os.environ:
        pytest.skip("needs the C test library: `make test`")
    return ctypes.CDLL(os.environ["TASKCLONE_BUILD"] + "/csrc/testing/libcopies.so")


@by_form()
def test_libc_knows_the_id_of_the_thread(form: str, library: Any) -> None:
    def body() -> tuple[int, int]:
        return library.owner_of_a_lock(), threading.get_native_id()

    owner, native_id = call(body, **FORMS[form])
    assert owner == native_id


@by_form()
def test_the_kernel_still_knows_robust_locks(form: str, library: Any) -> None:
    library.new_robust_lock.restype = ctypes.c_void_p
    lock = ctypes.c_void_p(library.new_robust_lock())

    def body() -> None:
        assert library.lock(lock) == 0
        os._exit(0)

    clone(body, **FORMS[form]).wait(10)
    assert library.lock(lock) == errno.EOWNERDEAD


@by_form()
def test_handlers_of_the_library_run_once_or_never(form: str, library: Any) -> None:
    if not library.forks_seen():
        assert library.watch_forks() == 0
    before = library.forks_seen()
    seen: Callable[[], int] = library.forks_seen
    in_the_task = call(seen, **FORMS[form]) - before
    here = library.forks_seen() - before
    bare = "bare" in form
    assert in_the_task == (0 if bare else 101), "before, and in the child"
    assert here == (0 if bare else 110), "before, and in the parent"
    library.forks_seen.restype = ctypes.c_int


@by_form()
def test_threads_start_in_a_copy(form: str) -> None:
    def body() -> list[int]:
        found: list[int] = []
        threads = [threading.Thread(target=found.append, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        return sorted(found)

    assert call(body, **FORMS[form]) == list(range(5))


@by_form()
def test_a_copy_starts_tasks_of_its_own(form: str) -> None:
    """None of the creator's hosts is in it, and none of its children."""
    call(int, flags="VM|FILES")  # a host is parked

    def body() -> tuple[int, int, int]:
        return call(abs, -1, flags="VM|FILES"), call(abs, -2), call(["true"])

    assert call(body, **FORMS[form]) == (1, 2, 0)

"""Starts where clone3 is missing or filtered, as old seccomp profiles of containers have it: clone(2) does it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import creator

WORLD = f"""
import errno, gc, resource
sys.path.insert(0, {str(Path(__file__).parent)!r})
import seccomp
from proc import children_of, descriptors, shared_between, until
from taskclone import _core
F = CloneFlags
def caught(): # the handled signals of this very task
    text = open("/proc/thread-self/status").read()
    return int(text.split("SigCgt:")[1].split()[0], 16)
def names(task): return set(task.emulated)
def nothing_left():
    def gone():
        gc.collect(); _core.hosts_end()
        return not children_of(os.getpid())
    until(gone, "no child is left")
"""
NO_CLONE3 = WORLD + "seccomp.refuse('clone3', errno.ENOSYS)\n"


def check(script: str, world: str = NO_CLONE3) -> str:
    """The script's output; it must end well, and print nothing on stderr."""
    status, out, err = creator.run(world + script)
    assert status == 0, f"{out}\n{err}"
    assert err == ""
    return out


SHARED_SETS = [
    "VM|FILES",
    "VM",
    "VM|FS|FILES",
    "VM|FS|FILES|SIGHAND",
    "VM|FILES|SYSVSEM",
    "VM|FILES|PIDFD|PARENT_SETTID",
]


@pytest.mark.parametrize("how", ["lent", "hosted", "in place"])
@pytest.mark.parametrize("exit_signal", [0, 17])
def test_shared_tasks_share_what_they_are_asked_to(how: str, exit_signal: int) -> None:
    """Lent: the main thread clones. Hosted: another thread asks. In place: VFORK."""
    sets = [f"{item}|VFORK" if how == "in place" else item for item in SHARED_SETS]
    check(f"""
signal.signal(signal.SIGWINCH, lambda *_: None)
signal.signal(signal.SIGUSR2, lambda *_: None)
creator_pid = os.getpid()
here = {{}}
def body(flags):
    shared = shared_between(creator_pid, _core_tid()) - {{"IO", "SYSVSEM"}}
    return os.getpid(), shared, caught(), here
def _core_tid(): return threading.get_native_id()
def attempt(flags):
    task = clone(body, flags, flags=flags, exit_signal={exit_signal})
    pid, shared, handled, same = task.result(10)
    status = task.wait(10)
    assert status.code == 0, status
    assert pid == task.pid != creator_pid, (pid, task.pid)
    assert same is here
    asked = set(flags.split("|"))
    assert shared == asked & {{"VM", "FILES", "FS", "SIGHAND"}}, (flags, shared)
    own_handlers = "SIGHAND" not in asked
    assert bool(handled >> (signal.SIGWINCH - 1) & 1) != own_handlers
    assert ("CLEAR_SIGHAND" in names(task)) == own_handlers
    assert not task.granted.flags & F.CLEAR_SIGHAND
    assert all("clone3" in why for why in task.emulated.values())
    reported = "PARENT_SETTID" in names(task) or bool(task.granted.flags & F.PARENT_SETTID)
    assert reported
    assert bool(task.granted.flags & F.PIDFD) == ({exit_signal} != 0 or "PIDFD" in asked)
    assert task.granted.exit_signal == {exit_signal}
    assert set(flags.split("|")) - {{"PARENT_SETTID"}} <= set(str(task.granted).split(" ")[0].split("|"))
def all_sets():
    for flags in {sets!r}: attempt(flags)
if {how == "hosted"}:
    failures = []
    def run():
        try: all_sets()
        except BaseException as error: failures.append(repr(error))
    thread = threading.Thread(target=run); thread.start(); thread.join(20)
    assert not failures, failures
else: all_sets()
assert signal.getsignal(signal.SIGWINCH) not in (signal.SIG_DFL, None)
assert caught() >> (signal.SIGWINCH - 1) & 1, "the creator's own handlers are as they were"
nothing_left()
""")


@pytest.mark.root
@pytest.mark.parametrize("flags", ["VM|FILES", "VM|FILES|VFORK"])
def test_namespaces(flags: str) -> None:
    check(f"""
def body(): return [os.readlink(f"/proc/thread-self/ns/{{kind}}") for kind in ("uts", "ipc", "net")], os.getpid()
for signal_ in (0, signal.SIGCHLD):
    task = clone(body, flags="{flags}|NEWUTS|NEWPID|NEWIPC", exit_signal=signal_)
    (uts, ipc, net), pid = task.result(10)
    assert task.wait(10).code == 0
    assert uts != os.readlink("/proc/self/ns/uts")
    assert ipc != os.readlink("/proc/self/ns/ipc")
    assert net == os.readlink("/proc/self/ns/net")
    assert pid == 1 != task.pid
nothing_left()
""")


@pytest.mark.parametrize("flags", ["VM|FILES", "VM|FILES|SIGHAND", "VM"])
def test_a_task_with_an_exit_signal_knows_its_id_at_once(flags: str) -> None:
    """parent_tid is taken by the pidfd, so its id is written only when the call is back."""
    check(f"""
setup = ChildSetup(sigmask=())
for _ in range(200):
    task = clone(os.getpid, flags="{flags}", exit_signal=signal.SIGCHLD, setup=setup)
    assert task.pid == task.result(10), (task.pid, task.result(10))
    assert os.wait()[0] == task.pid
nothing_left()
""")


def test_crashes_kills_and_exceptions_of_shared_tasks() -> None:
    check("""
import ctypes
for flags in ("VM|FILES", "VM|FILES|VFORK"):
    task = clone(ctypes.string_at, 1, flags=flags)
    try: task.result(10)
    except TaskDied as died:
        assert died.signal == signal.SIGSEGV and died.address == 1, died
        assert any(frame.name == "string_at" for frame in died.stack)
        assert died.damage == (), "the probe of malloc was started too"
    else: raise AssertionError("it lives")
reading, _ = os.pipe()
for end in (Task.kill, Task.terminate):
    task = clone(os.read, reading, 1, flags=SHARED)
    end(task)
    assert task.done()
def fail(): raise LookupError("mine")
assert isinstance(clone(fail, flags=SHARED).exception(10), LookupError)
def leave(): sys.exit(7)
assert clone(leave, flags=SHARED).wait(10).code == 7
task = clone(time.sleep, 30, flags=SHARED)
task.send_signal(signal.SIGTERM)  # the handler that asks for the end was set after the reset
assert isinstance(task.exception(10), TaskDied)
assert stats()["malloc_deaths"] == 0
nothing_left()
""")


def test_setup_of_shared_tasks() -> None:
    check("""
def body(): return os.getcwd(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
setup = ChildSetup(cwd="/proc", sigmask=[signal.SIGUSR1], signals={signal.SIGUSR2: "ignore"})
for flags in ("VM|FILES", "VM|FILES|VFORK"):
    assert call(body, flags=flags, setup=setup, timeout=None) == ("/proc", {signal.SIGUSR1})
try: clone(body, flags=SHARED, setup=ChildSetup(cwd="/no/such"))
except StartError as error: assert error.step == "chdir"
nothing_left()
""")


def test_programs() -> None:
    check("""
signal.signal(signal.SIGWINCH, lambda *_: None)
task = clone(["sh", "-c", "grep SigCgt /proc/self/status; exit 3"], stdout=CAPTURE)
assert task.result(10) == 3
assert int(task.stdout.split()[1], 16) >> (signal.SIGWINCH - 1) & 1 == 0
assert names(task) == {"CLEAR_SIGHAND", "PARENT_SETTID"}, task.emulated
assert task.granted.flags == F.VM | F.VFORK | F.PIDFD | F.CHILD_SETTID, task.granted
assert os.readlink(f"/proc/self/fd/{task.fileno()}").startswith("anon_inode:[pidfd]")
assert task.status.rusage
task = clone(["sleep", "100"])
task.kill()
assert task.status.signal == signal.SIGKILL
assert call(["pwd"], setup=ChildSetup(cwd="/proc"), stdout=CAPTURE) == 0
for fields, step in ((dict(setup=ChildSetup(cwd="/no/such")), "chdir"), ({}, "execve")):
    try: clone(["/no/such/program"], **fields)
    except StartError as error: assert error.step == step, error
    else: raise AssertionError(step)
nothing_left()
assert len(descriptors()) < 10
""")


def test_copied_tasks_and_threads_never_needed_it() -> None:
    check("""
assert call(os.getpid) != os.getpid() == call(os.getpid, flags=THREAD)
assert clone(sys.exit, 3).wait(10).code == 3
nothing_left()
""")


@pytest.mark.parametrize("bare", [False, True])
def test_copies_by_relay_and_bare(bare: bool) -> None:
    """A relay's flags are those of the task in the middle, which tells them to the creator."""
    check(f"""
signal.signal(signal.SIGWINCH, lambda *_: None)
creator_pid = os.getpid()
def body(): return os.getpid(), os.getppid(), shared_between(creator_pid, os.getpid()) - {{"IO", "SYSVSEM"}}, caught()
for flags in ("PIDFD", "PIDFD|PARENT_SETTID", "VFORK", "VFORK|PIDFD", "CLEAR_SIGHAND", "CLEAR_SIGHAND|VFORK"):
    task = clone(body, flags=flags, bare={bare})
    pid, parent, shared, handled = task.result(10)
    assert (task.pid, parent) == (pid, creator_pid), (task.pid, pid, parent)
    assert shared == set()
    cleared = "CLEAR_SIGHAND" in flags
    assert bool(handled >> (signal.SIGWINCH - 1) & 1) != cleared, (flags, handled)
    assert ("CLEAR_SIGHAND" in names(task)) == cleared
    assert not task.granted.flags & F.CLEAR_SIGHAND and task.granted.flags & F.CHILD_SETTID
    assert bool(task.granted.flags & F.PARENT) == (not {bare})
    assert os.readlink(f"/proc/self/fd/{{task.fileno()}}").startswith("anon_inode:[pidfd]")
    assert task.wait(10).code == 0 and task.status.rusage
    if "PARENT_SETTID" in flags: assert names(task) == {{"PARENT_SETTID"}} if {bare} else {{"PIDFD"}}
task = clone(time.sleep, 100, flags="PIDFD", bare={bare})
task.kill()
assert task.status.signal == signal.SIGKILL
try: clone(int, flags="PIDFD", bare={bare}, setup=ChildSetup(cwd="/no/such"))
except StartError as error: assert error.step == "chdir", error
else: raise AssertionError("started")
nothing_left()
""")


def test_bare_copies_share_what_they_are_asked_to() -> None:
    check("""
creator_pid = os.getpid()
def body(): return shared_between(creator_pid, os.getpid()) - {"IO", "SYSVSEM"}
for flags in ("FILES", "FS", "FILES|FS|PIDFD|PARENT_SETTID", "FS|VFORK"):
    with clone(body, flags=flags, exit_signal=signal.SIGCHLD) as task:
        assert task.result(10) == set(flags.split("|")) & {"FILES", "FS"}, flags
    assert task.granted.exit_signal == signal.SIGCHLD
nothing_left()
""")


def test_raw_forks() -> None:
    check("""
for flags in ("", "PIDFD", "CLEAR_SIGHAND", "FS"):
    task = fork(flags)
    if task is None: os._exit(5)
    assert task.result(10) == 5, flags
    assert ("CLEAR_SIGHAND" in names(task)) == (flags == "CLEAR_SIGHAND")
nothing_left()
""")


@pytest.mark.root
@pytest.mark.parametrize("bare", [False, True])
def test_copies_in_namespaces(bare: bool) -> None:
    check(f"""
def body(): return os.readlink("/proc/self/ns/uts"), os.getpid()
with clone(body, flags="NEWUTS|NEWPID", bare={bare}) as task:
    uts, pid = task.result(10)
    assert uts != os.readlink("/proc/self/ns/uts") and pid == 1 != task.pid
try: clone(body, flags="NEWTIME", bare={bare})
except StartError as error: assert (error.step, error.errno) == ("clone3", errno.ENOSYS)
else: raise AssertionError("started")
nothing_left()
""")


def test_an_executor() -> None:
    check("""
for flags in (PROCESS, SHARED, THREAD):
    with Executor(flags=flags) as executor:
        assert list(executor.map(abs, range(-20, 0))) == list(range(20, 0, -1))
nothing_left()
""")


@pytest.mark.root
@pytest.mark.parametrize("flags", ["VM|FILES|NEWTIME", "VM|FILES|VFORK|NEWTIME"])
def test_what_only_clone3_can_say_is_refused_by_its_name(flags: str) -> None:
    check(f"""
try: clone(int, flags="{flags}")
except StartError as error:
    assert (error.step, error.errno) == ("clone3", errno.ENOSYS)
    assert "clone3 is missing or filtered" in error.advice and "NEWTIME" in error.advice
else: raise AssertionError("started")
nothing_left()
""")


def test_a_refusal_of_clone_is_one_of_clone() -> None:
    """As in a profile that keeps back clone3, and of clone the namespaces."""
    check("""
task = clone(["true"])
task.wait(10)
bits = int(task.granted.flags | F.NEWUSER) | signal.SIGCHLD
seccomp.refuse("clone", errno.EPERM, bits)
before = descriptors()
try: clone(["true"], flags="NEWUSER")
except StartError as error:
    assert (error.step, error.errno) == ("clone", errno.EPERM), error
    assert "clone3 is missing or filtered" in error.advice
else: raise AssertionError("started")
assert call(["true"]) == 0
assert descriptors() == before
nothing_left()
""")


REFUSED = """
try: clone({body}, flags={flags!r})
except StartError as error:
    assert (error.step, error.errno) == ("clone3", errno.EPERM), error
    assert "CAP_SYS_ADMIN" in error.advice
else: raise AssertionError("started")
"""


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        ("['true']", "NEWUTS"),
        ("int", "VM|FILES|NEWUTS"),
        ("int", "VM|VFORK|NEWUTS"),
        ("int", "NEWUTS"),
        ("int", "NEWUTS|FS"),
    ],
)
def test_a_missing_privilege_is_not_taken_for_a_filter(body: str, flags: str) -> None:
    as_nobody = "os.setgroups([]); os.setresgid(9, 9, 9); os.setresuid(9, 9, 9)\n" if os.geteuid() == 0 else ""
    check(
        "call(int, flags='VM|FILES'); signal.valid_signals()\n" + as_nobody + REFUSED.format(body=body, flags=flags),
        WORLD,
    )


EPERM = WORLD + "clone(int, flags=SHARED).wait()\nseccomp.refuse('clone3', errno.EPERM)\n"


def test_eperm_is_told_from_a_missing_privilege_too() -> None:
    """glibc makes no threads then, so shared tasks run on the hosts that there are."""
    check(
        """
task = clone(os.getpid, flags=SHARED)
assert task.result(10) == task.pid != os.getpid()
assert names(task) == {"CLEAR_SIGHAND"}
assert call(["true"]) == 0
assert call(os.getpid) != os.getpid()
nothing_left()
for flags in (SHARED, THREAD):
    try: clone(int, flags=flags)
    except StartError as error:
        assert error.errno == errno.EPERM and "libc makes threads by clone3" in error.advice, error
    else: raise AssertionError("started")
nothing_left()
""",
        EPERM,
    )


def test_a_filter_that_comes_later() -> None:
    """Nothing is remembered: each start asks anew."""
    check(
        """
with clone(["true"]) as task:
    assert not task.emulated and task.granted.flags & F.CLEAR_SIGHAND
seccomp.refuse("clone3", errno.ENOSYS)
with clone(["true"]) as task:
    assert names(task) == {"CLEAR_SIGHAND", "PARENT_SETTID"}
nothing_left()
""",
        WORLD,
    )


def test_no_user_namespaces() -> None:
    """The error names them. By a filter: a sysctl would be everybody's."""
    check(
        """
seccomp.refuse("clone3", errno.ENOSPC)
try: clone(["true"], flags="NEWUSER")
except StartError as error:
    assert (error.step, error.errno) == ("clone3", errno.ENOSPC)
    assert "max_*_namespaces" in error.advice or "user.max" in error.advice, error.advice
""",
        WORLD,
    )


def test_kcmp_is_named_where_it_is_missing() -> None:
    for number in ("ENOSYS", "EPERM"):
        check(
            f"""
seccomp.refuse("kcmp", errno.{number})
try: _core.kcmp(os.getpid(), os.getpid(), 1)
except OSError as error: assert error.errno == errno.{number} and str(error.strerror).startswith("kcmp"), error
else: raise AssertionError("it compares")
assert call(int, flags=SHARED) == call(int) == call(int, flags=THREAD) == call(["true"]) == 0
""",
            WORLD,
        )


@pytest.mark.parametrize("more", ["IO", "UNTRACED", "VFORK", "PIDFD", "PIDFD|VFORK", "CHILD_SETTID", "PARENT"])
def test_threads_that_the_caller_clones(more: str) -> None:
    check(f"""
more = CloneFlags.IO | 0
for name in "{more}".split("|"): more |= CloneFlags[name]
try: Plan(THREAD | more)
except FlagError: sys.exit() # before Linux 6.9
for own in (F(0), F.FILES, F.FS, F.SYSVSEM):
    box = []
    def body():
        box.append((threading.get_native_id(), set(threading.enumerate())))
        return shared_between(os.getpid(), threading.get_native_id()) - {{"IO"}}
    task = clone(body, flags=(THREAD | more) & ~own)
    assert task.result(10) == {{"VM", "SIGHAND", *(flag.name for flag in (F.FILES, F.FS, F.SYSVSEM) if not own & flag)}}
    assert box[0][0] == task.tid != os.getpid() == task.pid
    assert len(box[0][1]) == 2
    given = task.granted.flags
    assert names(task) == ({{"PARENT_SETTID"}} if more & F.PIDFD else set())
    assert given | F.PARENT_SETTID | F.CHILD_SETTID == (THREAD | more) & ~own | F.CHILD_SETTID | F.CHILD_CLEARTID
    if more & F.PIDFD: assert "anon_inode" in os.readlink(f"/proc/self/fd/{{task.fileno()}}")
seccomp.refuse("clone", errno.EAGAIN, int(given))
ran = []
try: clone(ran.append, 1, flags=(THREAD | more) & ~own)
except StartError as error: assert (error.step, error.errno) == ("clone", errno.EAGAIN), error
else: raise AssertionError("started")
assert ran == [] and threading.active_count() == 1
until(lambda: len(os.listdir("/proc/self/task")) == 1, "no thread is left")
nothing_left()
""")

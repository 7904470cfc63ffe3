"""What a start is given beside its flags, on every route: ids of its choice, a control group, users and groups of a new
namespace; and what is left of a sibling, for which another process waits."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from kernel_oracle import Oracle
from probes import keeps_status

from proc import PATIENCE, held, shared_between, something_to_share
from siblings import lines_of
from taskclone import SHARED, THREAD, ChildSetup, CloneFlags, StartError, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
PROCESSES = {"relay": F.NEWUTS, "bare": F.FILES, "shared": SHARED, "in place": SHARED | F.VFORK}
THREADS = {"thread": THREAD, "thread by clone": THREAD | F.IO}
by_route = pytest.mark.parametrize("flags", (PROCESSES | THREADS).values(), ids=PROCESSES | THREADS)
by_process = pytest.mark.parametrize("flags", PROCESSES.values(), ids=PROCESSES)


def free_id() -> int:
    """One that nobody has had lately."""
    top = int(Path("/proc/sys/kernel/pid_max").read_text())
    return next(number for number in range(top - 1, 1, -7) if not Path(f"/proc/{number}").exists())


@pytest.mark.root
@by_route
def test_an_id_of_ones_choice_and_one_that_is_taken(flags: F) -> None:
    number, ran = free_id(), list[int]()
    task = clone(threading.get_native_id, flags=flags, set_tid=number)
    assert (task.result(PATIENCE), task.tid) == (number, number)
    task.wait(PATIENCE)
    with pytest.raises(StartError, match="another task's") as caught:
        clone(ran.append, 1, flags=flags, set_tid=os.getpid())
    assert (caught.value.step, caught.value.errno, ran) == ("clone3", errno.EEXIST, [])


@pytest.mark.root
@by_process
def test_in_a_group_from_birth(group: Path, flags: F) -> None:
    task = clone(Path("/proc/thread-self/cgroup").read_text, flags=flags, cgroup=group)
    assert f"/{group.name}\n" in task.result(PATIENCE)
    assert task.granted.flags & F.INTO_CGROUP
    task.wait(PATIENCE)


Seen = tuple[int, int, list[str], list[str], str]


def seen() -> Seen:
    maps = (Path(f"/proc/thread-self/{name}").read_text().split() for name in ("uid_map", "gid_map"))
    return os.getuid(), os.getgid(), *maps, Path("/proc/thread-self/setgroups").read_text().strip()


@by_process
def test_ids_in_a_namespace_of_its_own(flags: F, oracle: Oracle) -> None:
    if not oracle.makes_user_namespaces():
        pytest.skip("this user may make no user namespaces")
    uid, gid = str(os.geteuid()), str(os.getegid())
    setup = ChildSetup(uid_map=7, gid_map=8)
    assert call(seen, flags=flags | F.NEWUSER, setup=setup) == (7, 8, ["7", uid, "1"], ["8", gid, "1"], "deny")
    if os.geteuid() == 0:
        setup = ChildSetup(uid_map=[(0, 0, 1), (1, 100_000, 5)], gid_map=[(0, 0, 10)])
        expected = 0, 0, ["0", "0", "1", "1", "100000", "5"], ["0", "0", "10"], "allow"
        assert call(seen, flags=flags | F.NEWUSER, setup=setup) == expected


@pytest.mark.parametrize("more", [F(0), F.VFORK], ids=["shared", "in place"])
def test_an_io_context_in_common(more: F) -> None:
    """Where the main thread clones itself, with VFORK and without."""
    with something_to_share():
        kinds = call(lambda: shared_between(os.getppid(), os.getpid()), flags=SHARED | F.IO | more)
        assert "IO" in kinds
        with held(SHARED) as task:
            assert "IO" not in shared_between(os.getpid(), task.pid)


# ---- siblings -------------------------------------------------------------------------------------------------------

SIBLINGS = """
for body in ((os._exit, 5), (["sh", "-c", "exit 6"],)):
    task = clone(*body, flags="PARENT")
    while GONE(task.pid):
        time.sleep(0.001)
    status = task.wait()
    say(status.code, status.signal, status.source)
"""
STILL_THERE = "'Z' != open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[0]"


def test_a_sibling_that_its_parent_leaves() -> None:
    """The kernel tells of a zombie how it ended, whoever asks."""
    script = SIBLINGS.replace("GONE(task.pid)", STILL_THERE.replace("{pid}", "{task.pid}"))
    assert lines_of(script, reaps=False) == ["5 None proc", "6 None proc"]


def test_a_sibling_that_its_parent_has_reaped() -> None:
    """Since Linux 6.15 its pidfd still tells; before, only what it left itself is known."""
    script = SIBLINGS.replace("GONE(task.pid)", "os.path.exists(f'/proc/{task.pid}')")
    script += 'say(call(divmod, 7, 2, flags="PARENT"))\n'
    ends = ["5 None pidfd", "6 None pidfd"] if keeps_status() else ["None None lost"] * 2
    assert lines_of(script, reaps=True) == [*ends, "(3, 1)"]

"""Users and groups of a new user namespace, on every route, by whoever may write the maps."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from copyforms import IN_NAMESPACES
from creator import run
from taskclone import (
    CAPTURE,
    ChildSetup,
    CloneFlags,
    FlagError,
    Plan,
    StartError,
    Task,
    UnsupportedOperation,
    call,
    clone,
    fork,
)

pytestmark = [IN_NAMESPACES, pytest.mark.usefixtures("nothing_left")]

F = CloneFlags
ROUTES = {
    "relay": F.NEWUSER,
    "relay-NEWPID": F.NEWUSER | F.NEWPID,
    "bare": F.NEWUSER | F.FILES,
    "shared": F.NEWUSER | F.VM | F.FILES,
    "shared-NEWPID": F.NEWUSER | F.VM | F.NEWPID,
    "in_place": F.NEWUSER | F.VM | F.VFORK,
}
BY_ROUTE = pytest.mark.parametrize("flags", ROUTES.values(), ids=ROUTES.keys())
RANGES = ((0, 0, 1), (1, 100_000, 5))
Seen = tuple[int, int, list[str], list[str], str]


def seen() -> Seen:
    maps = (Path(f"/proc/thread-self/{name}").read_text().split() for name in ("uid_map", "gid_map"))
    return os.getuid(), os.getgid(), *maps, Path("/proc/thread-self/setgroups").read_text().strip()


@BY_ROUTE
def test_an_id_of_ones_own_needs_no_privilege(flags: F) -> None:
    uid, gid = str(os.geteuid()), str(os.getegid())
    expected = 7, 8, ["7", uid, "1"], ["8", gid, "1"], "deny"
    assert call(seen, flags=flags, setup=ChildSetup(uid_map=7, gid_map=8)) == expected
    assert call(seen, flags=flags, setup=ChildSetup(uid_map=[(7, int(uid), 1)], gid_map=[(8, int(gid), 1)])) == expected
    overflow = int(Path("/proc/sys/kernel/overflowgid").read_text())
    assert call(seen, flags=flags, setup=ChildSetup(uid_map=0)) == (0, overflow, ["0", uid, "1"], [], "allow")


@pytest.mark.root
@BY_ROUTE
def test_ranges_are_written_by_a_privileged_creator(flags: F) -> None:
    expected = 0, 0, ["0", "0", "1", "1", "100000", "5"], ["0", "0", "10"], "allow"
    assert call(seen, flags=flags, setup=ChildSetup(uid_map=RANGES, gid_map=[(0, 0, 10)])) == expected


def output(task: Task[int]) -> list[str]:
    assert task.stdout is not None
    return task.stdout.decode().split()


def test_a_program_has_them_before_it_starts() -> None:
    """Without them it would lose at execve what it may do in its namespace."""
    script = "id -u; id -g; grep CapEff /proc/self/status"
    with clone(["sh", "-c", script], flags="NEWUSER", setup=ChildSetup(uid_map=0, gid_map=0), stdout=CAPTURE) as task:
        assert task.result(10) == 0
        user, group, _, capabilities = output(task)
    assert (user, group) == ("0", "0")
    assert int(capabilities, 16)


@pytest.mark.root
def test_ranges_for_a_program_and_for_a_fork() -> None:
    setup = ChildSetup(uid_map=RANGES, gid_map=RANGES)
    with clone(["cat", "/proc/self/gid_map"], flags="NEWUSER", setup=setup, stdout=CAPTURE) as task:
        assert task.result(10) == 0
        assert output(task) == ["0", "0", "1", "1", "100000", "5"]
    copy = fork("NEWUSER", setup)
    if copy is None:
        os._exit(len(Path("/proc/self/uid_map").read_text().splitlines()))
    assert copy.result(10) == 2


@pytest.mark.root
@BY_ROUTE
def test_maps_that_are_refused_stop_the_start(flags: F) -> None:
    """The outside of an inner namespace is the creator's, and has only what that has."""

    def inner() -> tuple[int | None, str]:
        with pytest.raises(StartError) as caught:
            call(os._exit, 3, flags=flags & ~(F.VM | F.VFORK), setup=ChildSetup(uid_map=[(0, 70_000, 3)]))
        return caught.value.errno, caught.value.step

    with pytest.raises(StartError) as caught:
        call(os._exit, 3, flags=flags, setup=ChildSetup(uid_map=0, gid_map=[(0, 0, 1), (9, 1, 1)], cwd="/no/such"))
    assert caught.value.step == "chdir"
    if not flags & (F.VM | F.FILES):
        mapped = ChildSetup(uid_map=[(0, 0, 1)], gid_map=[(0, 0, 1)])
        assert call(inner, flags="NEWUSER", setup=mapped) == (errno.EPERM, "id_maps")


def helper(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def without_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskclone.routes.idmaps.has_capability", lambda bit: False)


def test_who_has_no_privilege_needs_newuidmap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_privilege(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedOperation, match=r"newgidmap\(1\), which is not installed .*uidmap"):
        clone(os._exit, 3, flags="NEWUSER", setup=ChildSetup(gid_map=RANGES))


@BY_ROUTE
def test_newuidmap_and_newgidmap_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: F) -> None:
    """Which programs, with which words; in their place is one that writes what this user may write himself."""
    without_privilege(monkeypatch)
    said, uid, gid = tmp_path / "said", os.geteuid(), os.getegid()
    path = os.environ["PATH"]
    for name, number, before in (("uid_map", uid, ""), ("gid_map", gid, "echo deny >/proc/$1/setgroups; ")):
        tool = f"new{name.replace('_', '')}"
        helper(
            tmp_path,
            tool,
            f'PATH={path}\necho {tool} $2 $3 $4 $5 >>{said}\n{before}echo "3 {number} 1" >/proc/$1/{name}',
        )
    monkeypatch.setenv("PATH", f"{tmp_path}:{path}")
    monkeypatch.setattr("taskclone.routes.idmaps._may_write_itself", lambda wanted: False)
    setup = ChildSetup(uid_map=[(3, uid, 1)], gid_map=[(3, gid, 1)])
    assert call(seen, flags=flags, setup=setup) == (3, 3, ["3", str(uid), "1"], ["3", str(gid), "1"], "deny")
    assert said.read_text() == f"newuidmap 3 {uid} 1\nnewgidmap 3 {gid} 1\n"


def test_what_newuidmap_says_goes_with_the_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_privilege(monkeypatch)
    helper(tmp_path, "newuidmap", "echo 'newuidmap: uid range [0-9) -> [5-14) not allowed' >&2\nexit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StartError, match="id_maps") as caught:
        clone(os._exit, 3, flags="NEWUSER", setup=ChildSetup(uid_map=[(0, 5, 9)]))
    assert caught.value.errno == errno.EPERM
    assert caught.value.__notes__ == ["newuidmap: uid range [0-9) -> [5-14) not allowed"]


def test_a_helper_is_believed_by_what_it_has_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its exit status may be anybody's: SIGCHLD may be ignored."""
    without_privilege(monkeypatch)
    helper(tmp_path, "newuidmap", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StartError, match="id_maps") as caught:
        clone(os._exit, 3, flags="NEWUSER", setup=ChildSetup(uid_map=[(0, 5, 9)]))
    assert "has not written uid_map" in caught.value.__notes__[0]


@pytest.mark.parametrize("flags", [F.NEWUSER, F.NEWUSER | F.VM | F.FILES, F.NEWUSER | F.VM | F.VFORK], ids=str)
def test_a_helper_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: F) -> None:
    without_privilege(monkeypatch)
    monkeypatch.setattr("taskclone.routes.idmaps.HELPER_TIMEOUT", 0.3)
    helper(tmp_path, "newuidmap", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StartError, match="id_maps") as caught:
        clone(os._exit, 3, flags=flags, setup=ChildSetup(uid_map=[(0, 5, 9)]))
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("flags", ["NEWUSER", "NEWUSER|VM|FILES", "NEWUSER|FILES"])
def test_ctrl_c_while_a_helper_hangs(tmp_path: Path, flags: str) -> None:
    helper(tmp_path, "newuidmap", f"echo here >{tmp_path}/here\nexec sleep 60")
    script = f"""
os.environ["PATH"] = "{tmp_path}:" + os.environ["PATH"]
from taskclone.routes import idmaps
idmaps.has_capability = lambda bit: False
def strike():
    while not os.path.exists("{tmp_path}/here"): time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
import warnings
warnings.simplefilter("ignore")
striker = threading.Thread(target=strike)
striker.start()
began = time.monotonic()
try: clone(os._exit, 3, flags="{flags}", bare="FILES" in "{flags}" and "VM" not in "{flags}",
           setup=ChildSetup(uid_map=[(0, 5, 9)]))
except KeyboardInterrupt: say("interrupted", time.monotonic() - began < 5)
striker.join()
say(threading.active_count())
"""
    assert run(script) == (0, "interrupted True\n1\n", "")


def test_ctrl_c_while_a_helper_is_being_started(tmp_path: Path) -> None:
    """The start is given up before the thread that starts the helper has it in hand to be killed."""
    helper(tmp_path, "newuidmap", "exec sleep 60")
    script = f"""
os.environ["PATH"] = "{tmp_path}:" + os.environ["PATH"]
from taskclone.routes import idmaps
import subprocess
idmaps.has_capability = lambda bit: False
creator = threading.get_ident()
def callers(frame):
    while frame:
        yield frame.f_code.co_name
        frame = frame.f_back
class Late(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)
        while "join" not in callers(sys._current_frames()[creator]): time.sleep(0.001)
subprocess.Popen = Late
began = time.monotonic()
try: clone(os._exit, 3, flags="NEWUSER", setup=ChildSetup(uid_map=[(0, 5, 9)]))
except KeyboardInterrupt: say("interrupted", time.monotonic() - began < 5)
say(threading.active_count())
"""
    assert run(script) == (0, "interrupted True\n1\n", "")


@pytest.mark.root
def test_given_up_before_the_task_asks() -> None:
    """It never gets an answer then, and has to find out."""
    script = """
import _thread
from taskclone.routes import shared
start = shared.shared_start
def struck(*arguments):
    core = start(*arguments)
    _thread.interrupt_main()
    return core
shared.shared_start = struck
for attempt in range(30):
    try: clone(os._exit, 3, flags="VM|FILES|NEWUSER", setup=ChildSetup(uid_map=[(0, 0, 9)]))
    except KeyboardInterrupt: continue
    say("not interrupted")
say("ends")
"""
    assert run(script, "-W", "ignore") == (0, "ends\n", "")


def test_a_bare_copy_that_sleeps_with_the_lock_cannot_wait_for_maps() -> None:
    for fields in ({"flags": "FILES|NEWUSER|VFORK"}, {"flags": "NEWUSER|VFORK", "bare": True}):
        with pytest.raises(UnsupportedOperation, match="sleeps with the interpreter lock"):
            clone(int, setup=ChildSetup(uid_map=RANGES), **fields)  # type: ignore[arg-type]


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("newuidmap"), reason="needs newuidmap (Debian's package uidmap)")
def test_the_real_newuidmap(tmp_path: Path) -> None:
    """As an ordinary user who has a range in /etc/subuid, which is put over the system's in a mount namespace."""
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("65534:300000:100\nnobody:300000:100\n")
    tmp_path.chmod(0o755)
    script = f"""
import ctypes, encodings.ascii, encodings.latin_1, resource, subprocess  # while their files can be read
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0  # NEWNS
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
for name in ("subuid", "subgid"):
    open("/etc/" + name, "a").close()
    assert libc.mount(f"{tmp_path}/{{name}}".encode(), f"/etc/{{name}}".encode(), None, 0x1000, None) == 0
os.setgroups([]), os.setgid(65534), os.setuid(65534)
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as after a login
def seen(): return open("/proc/thread-self/uid_map").read().split(), open("/proc/thread-self/gid_map").read().split()
ranges = [(0, 65534, 1), (1, 300000, 100)]
for flags in ("NEWUSER", "NEWUSER|VM|FILES", "NEWUSER|VM|VFORK"):
    uid, gid = call(seen, flags=flags, setup=ChildSetup(uid_map=ranges, gid_map=ranges))
    say(*uid, "/", *gid)
"""
    words = "0 65534 1 1 300000 100"
    assert run(script) == (0, f"{words} / {words}\n" * 3, "")


def test_they_need_a_namespace_of_their_own() -> None:
    for flags in (F(0), F.VM | F.FILES, F.NEWNS):
        with pytest.raises(FlagError, match="CLONE_NEWUSER is not in the set") as caught:
            Plan(flags, setup=ChildSetup(uid_map=0))
        assert caught.value.rule == "maps-new-user"


BAD: list[tuple[Any, type[Exception], str]] = [
    ("0 0 1", TypeError, "uid_map must be an id or a sequence"),
    (True, TypeError, "ids as numbers"),
    (-1, ValueError, "-1 is not in 0 to"),
    ([], ValueError, "1 to 340 ranges"),
    ([(0, 0, 1)] * 341, ValueError, "1 to 340 ranges"),
    ([0], TypeError, "a range is"),
    ([(0, 0)], TypeError, "a range is"),
    ([(0, 0, 0)], ValueError, "1 id or more, not 0"),
    ([(0, "0", 1)], TypeError, "ids as numbers"),
    ([(2, 0, 2**32 - 2)], ValueError, "goes beyond"),
    ([(0, 0, 2), (1, 9, 1)], ValueError, "the same ids inside"),
    ([(0, 0, 2), (2, 1, 1)], ValueError, "the same ids outside"),
]


@pytest.mark.parametrize(("value", "error", "text"), BAD, ids=[text for *_, text in BAD])
def test_bad_maps(value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ChildSetup(uid_map=value)


def test_the_whole_space_of_ids_is_a_range() -> None:
    assert ChildSetup(uid_map=[(0, 0, 2**32 - 1)]).uid_map == ((0, 0, 2**32 - 1),)


def test_maps_are_values() -> None:
    setup = ChildSetup(uid_map=[[0, 1, 2]], gid_map=4)  # type: ignore[list-item]
    assert setup == ChildSetup(uid_map=((0, 1, 2),), gid_map=4)
    assert (pickle.loads(pickle.dumps(setup)), hash(setup)) == (
        setup,
        hash(ChildSetup(uid_map=((0, 1, 2),), gid_map=4)),
    )

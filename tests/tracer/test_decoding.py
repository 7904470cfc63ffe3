"""Calls with arguments that no library passes: each field as the kernel was given it, unknown bits included."""

from __future__ import annotations

import errno
import platform
import signal

import pytest
from scripts import python, start

from taskclone import _core
from taskclone.flags import ROWS, CloneFlags
from taskclone.tracer import _ptrace
from taskclone.tracer.apis import APIS
from taskclone.tracer.findings import Finding, as_json, tell
from taskclone.tracer.records import CLONE_ARGS_SIZE, Call, CloneArgs, End, Exec
from taskclone.tracer.words import flag_words, notes, shared_words, signal_words

pytestmark = pytest.mark.usefixtures("nothing_left")

CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]
CLONE3 = 435

SYSCALLS = f"""
libc = ctypes.CDLL(None, use_errno=True)
def clone3(*fields, size=None):
    data = ctypes.create_string_buffer(struct.pack(f"={{len(fields)}}Q", *fields))
    return libc.syscall({CLONE3}, data, len(data) - 1 if size is None else size)
def clone(*args): return libc.syscall({CLONE}, *map(ctypes.c_ulong, args))
"""

F = CloneFlags


def call_of(script: str) -> Call:
    (call,) = python(SYSCALLS + script).calls
    return call


def test_every_field_of_the_structure() -> None:
    """Refused by the kernel, which cannot read the thread ids; what was passed is told all the same, whole."""
    flags = 1 << 50 | F.INTO_CGROUP | F.VM | F.SETTLS | F.PIDFD
    call = call_of(f"clone3({flags:#x}, 0x1001, 0x1002, 0x1003, 23, 0x1004, 0x1005, 0x1006, 0x1007, 3, 77)")
    assert call.args == CloneArgs(flags, 0x1001, 0x1002, 0x1003, 23, 0x1004, 0x1005, 0x1006, 0x1007, 3, 77)
    assert (call.system_call, call.size, call.unread) == ("clone3", CLONE_ARGS_SIZE, 0)
    assert (call.child, call.error_name, call.followed) == (0, "EFAULT", False)
    assert call.exit_signal == signal.SIGURG
    assert call.given == ("stack", "pidfd", "tls", "cgroup", "set_tid")


@pytest.mark.parametrize("bit", [*range(38, 64)])
def test_no_unknown_bit_is_dropped(bit: int) -> None:
    seen = Call(1, "clone3", 0, errno.EINVAL, False, 0, 88, CloneArgs(1 << bit | F.VM, *[0] * 10))
    (told,) = tell([seen], 0)
    assert flag_words(told) == f"VM|{1 << bit:#x}"
    assert seen.flags == 1 << bit | F.VM


def test_an_old_short_structure() -> None:
    """64 bytes, of Linux 5.3: the fields that came later are zero."""
    call = call_of("pid = clone3(0x400, 0, 0, 0, 23, 0, 0, 0)\nif not pid: os._exit(0)\nos.waitpid(pid, 0x40000000)")
    assert call.args == CloneArgs(0x400, 0, 0, 0, 23, 0, 0, 0, 0, 0, 0)
    assert (call.size, call.error, call.followed) == (64, 0, True)


def test_a_longer_structure_is_shown_with_its_size() -> None:
    (call,) = calls = python(SYSCALLS + "clone3(1 << 50, *[0] * 10, 0, 0)").calls
    assert (call.size, call.args.flags) == (104, 1 << 50)
    assert "clone_args of 104 bytes, of which 88 are shown" in _notes(calls)


def test_a_structure_that_cannot_be_read() -> None:
    calls = python(SYSCALLS + f"libc.syscall({CLONE3}, ctypes.c_ulong(8), {CLONE_ARGS_SIZE})").calls
    (call,) = calls
    assert (call.unread, call.error, call.args) == (errno.EFAULT, errno.EFAULT, CloneArgs(*[0] * 11))
    (told,) = tell(calls, 0)
    assert (flag_words(told), signal_words(told)) == ("?", "?"), "and not: none"
    assert "its arguments could not be read: EFAULT" in _notes(calls)


def test_a_structure_is_read_where_a_filter_refuses_the_short_way() -> None:
    """process_vm_readv fails in the tracer; word by word it can be read still."""
    script = f"""
from taskclone.tracer.trace import Trace
import seccomp
seccomp.refuse("process_vm_readv", errno.EPERM)
script = {SYSCALLS!r} + "clone3(1 << 50 | 0x100, 0, 0, 0, 23, 0, 0, 0, 0, 0, 5)"
with Trace([sys.executable, "-c", "import ctypes, struct\\n" + script]) as trace:
    (call,) = (item for item in trace.records() if hasattr(item, "args"))
say(call.unread, hex(call.flags), call.exit_signal, call.args.cgroup)
"""
    creator = start(script)
    out, err = creator.communicate(timeout=60)
    assert (out, err) == ("0 0x4000000000100 23 5\n", "")


def test_the_arguments_of_clone() -> None:
    """Its flags and signal are one word; the upper half of the register counts for nothing (kernel/fork.c)."""
    order = "0x13, 0x14" if platform.machine() == "x86_64" else "0x14, 0x13"  # child_tid, tls
    call = call_of(f"clone(0xffffffff_80000000 | {int(F.NEWNS | F.FS | F.SETTLS):#x} | 23, 0x11, 0x12, {order})")
    assert call.system_call == "clone"
    assert call.flags == F.IO | F.NEWNS | F.FS | F.SETTLS
    assert call.exit_signal == signal.SIGURG
    assert (call.args.stack, call.args.parent_tid, call.args.child_tid, call.args.tls) == (0x11, 0x12, 0x13, 0x14)
    assert call.given == ("stack", "tls")
    assert (call.size, call.error_name) == (0, "EINVAL")


def test_a_thread_id_that_was_asked_for() -> None:
    calls = python(
        SYSCALLS + "tid = ctypes.c_int(1); clone3(0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(tid), 1, 0)"
    ).calls
    (call,) = calls
    assert call.given == ("set_tid",)
    assert call.error_name in ("EEXIST", "EPERM")
    assert f"refused: {call.error_name}" in _notes(calls)


def _notes(calls: list[Call]) -> str:
    finding = Finding(APIS[0], tell(calls, 0))
    return notes(finding, finding.calls)


# ---- what is made of it ---------------------------------------------------------------------------------------------


def made(tid: int, child: int, flags: int = 0, followed: bool = True) -> Call:
    return Call(tid, "clone", child, 0, followed, 0, 0, CloneArgs(flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))


def test_who_made_what_and_which_is_the_body() -> None:
    """What a task does may be told before the call that has made it."""
    seen = tell([Exec(1, 1, "x"), Exec(3, 3, "sh"), made(3, 4), made(1, 2), End(4, 0), made(2, 3), made(4, 5)], body=5)
    assert [(item.number, item.maker, item.is_body, item.programs) for item in seen] == [
        (1, 3, False, ()),
        (2, 0, False, ()),
        (3, 2, False, ("sh",)),
        (4, 1, True, ()),
    ]


def test_a_failed_call_has_no_task() -> None:
    failed = Call(1, "clone3", 0, errno.ENOSYS, False, 0, 88, CloneArgs(*[0] * 11))
    first, second = tell([failed, made(1, 2)], body=2)
    assert (first.is_body, second.is_body) == (False, True)
    assert tell([failed], body=0)[0].is_body is False


def test_the_words_for_what_is_shared_are_the_tables() -> None:
    for member, row in ROWS.items():
        if row.kind == "share":
            assert row.resource in shared_words(member), member
    assert shared_words(F(0)) == f"nothing; memory: {ROWS[F.VM].default}"
    assert "the creator sleeps" in shared_words(F.VM | F.VFORK)
    assert shared_words(F.NEWPID | F.NEWUTS).endswith("; new: UTS namespace, PID namespace")


def test_json_keeps_the_unknown_bits_apart() -> None:
    (seen,) = as_json([Finding(APIS[0], tell([made(1, 2, 1 << 50 | F.VM, followed=False)], 2))])["apis"][0]["calls"]
    assert (seen["flags"], seen["flag_names"], seen["unknown_bits"]) == (1 << 50 | 0x100, ["VM"], 1 << 50)
    assert (seen["runs_the_body"], seen["followed"], seen["exit_signal_name"]) == (True, False, "SIGCHLD")


# ---- the extension --------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_records() -> None:
    with pytest.raises(ValueError, match="not whole records"):
        _ptrace.parse(b"x")
    with pytest.raises(ValueError, match="unknown kind"):
        _ptrace.parse(b"\xff" * _ptrace.RECORD_SIZE)
    assert _ptrace.parse(b"") == []


@pytest.mark.parametrize("streams", [(0, 1), (0, 1, "2"), None])
def test_bad_arguments_start_nothing(streams: object) -> None:
    with pytest.raises(TypeError):
        _ptrace.start(b"/bin/true", [b"true"], [], streams)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="null byte"):
        _ptrace.start(b"/bin/true", [b"tr\0ue"], [], (0, 1, 2))
    assert _core.children_running() == []

"""leave_out: pages that a copy is made without, and that are in the next one again."""

from __future__ import annotations

import array
import ctypes
import faulthandler
import mmap
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from creator import run
from proc import held
from taskclone import ChildSetup, CloneFlags, Plan, StartError, TaskDied, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
MB = 1 << 20
PAGE = mmap.PAGESIZE
FORMS: dict[str, dict[str, Any]] = {"fork": {}, "relay": {"flags": F.UNTRACED}, "bare": {"bare": True}}
BY_FORM = pytest.mark.parametrize("fields", FORMS.values(), ids=FORMS)


def address_of(buffer: Any) -> tuple[int, int]:
    """Where a writable one begins, and its bytes."""
    view = memoryview(buffer)
    return ctypes.addressof(ctypes.c_char.from_buffer(view)), view.nbytes


def left_out_pages() -> int:
    """kB of this process that a fork would leave out (VmFlags dc in /proc/PID/smaps), the kernel's own maps apart."""
    total, size, name = 0, 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            name = line.split(None, 5)[5].strip() if len(line.split(None, 5)) > 5 else ""
        elif line.startswith("Size:"):
            size = int(line.split()[1])
        elif line.startswith("VmFlags:") and " dc" in line and not name.startswith("[v"):
            total += size
    return total


def touch(buffer: Any, index: int) -> int:
    faulthandler.disable()  # pytest's own, whose dump would look as if pytest had crashed
    return int(memoryview(buffer).cast("B")[index])


BUFFERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(MB),
    "bytes": lambda: bytes(MB),
    "array": lambda: array.array("d", bytes(MB)),
    "private mmap": lambda: mmap.mmap(-1, MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    "shared mmap": lambda: mmap.mmap(-1, MB),
    "memoryview": lambda: memoryview(bytearray(2 * MB))[MB // 2 : MB // 2 + MB],
}


@BY_FORM
@pytest.mark.parametrize("kind", BUFFERS)
def test_a_task_that_reads_it_dies_of_it(fields: dict[str, Any], kind: str) -> None:
    buffer = BUFFERS[kind]()
    with pytest.raises(TaskDied) as died:
        call(touch, buffer, MB // 2, leave_out=[buffer], **fields)
    assert died.value.signal == signal.SIGSEGV
    assert left_out_pages() == 0
    assert call(touch, buffer, MB // 2, **fields) == 0, "it is in the next copy again"


@BY_FORM
def test_only_whole_pages_inside_are_left_out(fields: dict[str, Any]) -> None:
    with mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        view = memoryview(room)[100 : 3 * PAGE + 100]  # pages 1 and 2 of 4 are wholly in it
        for page, there in ((0, True), (1, False), (2, False), (3, True)):
            task = clone(touch, room, page * PAGE + 50, leave_out=[view], **fields)
            assert (task.exception(10) is None) == there, page
            task.wait(10)
        view.release()


@BY_FORM
def test_several_and_the_same_twice(fields: dict[str, Any]) -> None:
    one, other, kept = bytearray(MB), bytearray(MB), bytearray(MB)
    plan = Plan(leave_out=[one, other, memoryview(one)[1000:]], **fields)
    assert plan.start(touch, kept, MB // 2).result(10) == 0
    for gone in (one, other):
        with pytest.raises(TaskDied):
            plan.start(touch, gone, MB // 2).result(10)
    assert left_out_pages() == 0


@BY_FORM
def test_it_is_not_mapped_in_the_task(fields: dict[str, Any]) -> None:
    buffer = mmap.mmap(-1, 64 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start, _ = address_of(buffer)

    def mapped() -> int:
        found = 0
        for line in Path("/proc/self/maps").read_text().splitlines():
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            found += max(0, min(high, start + 64 * MB) - max(low, start))
        return found

    assert call(mapped, leave_out=[buffer], **fields) == 0
    assert call(mapped, **fields) == 64 * MB


def test_a_bytearray_cannot_be_resized_meanwhile() -> None:
    """A hook before the fork may try: the view is held."""
    script = """
buffer = bytearray(1 << 20)
tried = []
def before():
    try: buffer.extend(bytes(1 << 20))
    except BufferError: tried.append("refused")
os.register_at_fork(before=before)
assert call(abs, -1, leave_out=[buffer]) == 1
say(*tried, len(buffer))
buffer.extend(b"x")
say(len(buffer))
"""
    assert run(script) == (0, f"refused {MB}\n{MB + 1}\n", "")


# ---- every way out --------------------------------------------------------------------------------------------------


def test_it_is_put_back_when_the_start_fails(tmp_path: Path) -> None:
    buffer = bytearray(MB)
    for fields in FORMS.values():
        with pytest.raises(StartError, match="chdir"):
            clone(int, leave_out=[buffer], setup=ChildSetup(cwd=tmp_path / "missing"), **fields)
        assert left_out_pages() == 0


@pytest.mark.parametrize(("call_name", "step"), [("clone3", "clone3"), ("clone", "fork")])
def test_it_is_put_back_when_the_kernel_refuses(call_name: str, step: str) -> None:
    script = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import errno, seccomp
from test_leave_out import left_out_pages
buffer = bytearray(1 << 20)
plans = [Plan("UNTRACED", leave_out=[buffer]), Plan(bare=True, leave_out=[buffer]), Plan(leave_out=[buffer])]
seccomp.refuse({call_name!r}, errno.EAGAIN)
for plan in plans:
    try: plan.start(int).wait()
    except StartError as error: say(error.step, error.errno)
    assert left_out_pages() == 0
"""
    status, out, err = run(script)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines == [f"{step} 11"] * 2, "the third has nothing to do with that call"


def test_it_is_put_back_when_threads_are_in_the_way() -> None:
    script = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_leave_out import left_out_pages
buffer = bytearray(1 << 20)
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
try: clone(int, flags="FILES", leave_out=[buffer])
except UnsupportedOperation: say(left_out_pages())
stop.set()
thread.join()
buffer.extend(b"x")
"""
    assert run(script) == (0, "0\n", "")


def test_memory_that_cannot_be_put_back_is_refused() -> None:
    """A range that is not mapped any more: madvise says so, and nothing is changed."""
    script = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import ctypes, mmap
from test_leave_out import address_of, left_out_pages
libc = ctypes.CDLL(None)
good = bytearray(1 << 20)
bad = mmap.mmap(-1, 1 << 28, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # more than what may come in its place
start, size = address_of(bad)
assert libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(size)) == 0
for fields in ({{}}, {{"flags": "UNTRACED"}}, {{"bare": True}}):
    try: clone(int, leave_out=[good, bad], **fields)
    except StartError as error: say(error.step, error.errno, left_out_pages())
os._exit(0)
"""
    assert run(script) == (0, "leave_out 12 0\n" * 3, "")


# ---- at once --------------------------------------------------------------------------------------------------------


def test_two_threads_with_one_buffer() -> None:
    """One thread's copy must never miss what only the other's plan leaves out, and the buffer stays at the end."""
    script = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import warnings
from test_leave_out import left_out_pages
warnings.simplefilter("ignore", DeprecationWarning)
buffer = bytearray(1 << 20)
without, plain = [Plan(leave_out=[buffer]), Plan("UNTRACED", leave_out=[buffer])], [Plan(), Plan("UNTRACED")]
bad = []
def work(plans, expected):
    for number in range(20):
        task = plans[number % 2].start(lambda: buffer[500_000])
        if type(task.exception(20)) is not expected:
            bad.append(task.exception())
threads = [threading.Thread(target=work, args=args) for args in
           [(without, TaskDied), (plain, type(None)), (without, TaskDied), (plain, type(None))]]
for thread in threads: thread.start()
for thread in threads: thread.join()
say(bad, left_out_pages())
"""
    assert run(script) == (0, "[] 0\n", "")


def test_a_start_inside_a_task_that_leaves_it_out_too() -> None:
    buffer = bytearray(MB)

    def body() -> int:
        return call(touch, bytearray(b"x" * 5), 0) + call(abs, -1)

    assert call(body, leave_out=[buffer]) == ord("x") + 1
    shared = clone(lambda: call(abs, -2, leave_out=[buffer]), flags="VM|FILES")
    assert shared.result(10) == 2
    assert left_out_pages() == 0


@BY_FORM
def test_what_it_is_for(fields: dict[str, Any]) -> None:
    """The page tables of what is left out are not copied: seen in the task's own, while it lives."""
    with mmap.mmap(-1, 256 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as buffer:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            buffer.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(0, 256 * MB, PAGE):
            buffer[page] = 1

        def tables(pid: int) -> int:
            return int(re.findall(r"VmPTE:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])

        base = {"flags": 0, **fields}
        with held(**base) as whole, held(**base, leave_out=[buffer]) as less:
            assert tables(whole.pid) - tables(less.pid) > 400, "kB: 512 map 256 MB"
            assert tables(os.getpid()) - tables(less.pid) > 400

"""``taskclone demo``: the sample of clone's best-known article, and what it leads to."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import threading
import time

import click

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, StartError, Task, TaskDied, call, clone
from taskclone.flags import flag_names


@click.group(invoke_without_command=True)
@click.pass_context
def demo(ctx: click.Context) -> None:
    """The sample of the article. Without a form: copied memory."""
    if ctx.invoked_subcommand is None:
        _sample(PROCESS)


@demo.command()
def vm() -> None:
    """The sample with CLONE_VM: the parent sees what the child writes."""
    _sample(SHARED)


def _sample(flags: CloneFlags) -> None:
    buffer = bytearray(b"hello from parent")

    def child() -> None:
        print(f'Child sees buf = "{buffer.decode()}"')
        buffer[:] = b"hello from child"

    task = clone(child, flags=flags, exit_signal=signal.SIGCHLD)
    pid, status = os.wait()
    assert pid == task.pid != os.getpid()
    print(f'Child exited with status {os.waitstatus_to_exitcode(status)}. buf = "{buffer.decode()}"')


@demo.command()
def ids() -> None:
    """What tasks of the three presets see of themselves."""

    def look() -> tuple[int, int, int]:
        return threading.get_native_id(), os.getpid(), os.getppid()

    rows = [("creator", *look())]
    rows += [(name, *call(look, flags=flags)) for name, flags in _PRESETS]
    print(f"{'':10}{'tid':>9}{'pid (thread group)':>20}{'parent':>9}")
    for name, tid, pid, parent in rows:
        print(f"{name:10}{tid:>9}{pid:>20}{parent:>9}")


_PRESETS = (("PROCESS", PROCESS), ("SHARED", SHARED), ("THREAD", THREAD))


@demo.command()
def fd() -> None:
    """What FILES shares: a descriptor that the task opens, and one that it closes."""
    for name, flags in (("SHARED", SHARED), ("SHARED without FILES", SHARED & ~CloneFlags.FILES), ("PROCESS", PROCESS)):
        to_close = os.open(os.devnull, os.O_RDONLY)

        def body(number: int = to_close) -> int:
            opened = os.dup(2)  # before the close: else it would get that number
            os.close(number)
            return opened

        opened = call(body, flags=flags)
        print(f"{name}: the descriptor that the task opened is {_there(opened)} the creator's table,")
        print(f"{'':{len(name)}}  the one that it closed is {_there(to_close)} it")
        for number in {opened, to_close}:
            if _is_open(number):
                os.close(number)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _there(number: int) -> str:
    return "in" if _is_open(number) else "not in"


@demo.command()
def stop() -> None:
    """A stuck function is ended by call(..., timeout=1)."""

    def stuck() -> None:
        while True:
            time.sleep(3600)

    began = time.monotonic()
    try:
        call(stuck, timeout=1, flags=SHARED)
    except TimeoutError as error:
        print(f"after {time.monotonic() - began:.2f} s: TimeoutError: {error}")


@demo.command()
def crash() -> None:
    """A task that shares memory dies of SIGSEGV; the creator goes on."""
    notes: list[str] = []

    def careless() -> None:
        notes.append(f"written by process {os.getpid()} before it crashed")
        ctypes.string_at(0)

    task: Task[None] = clone(careless, flags=SHARED)
    try:
        task.result()
    except TaskDied as error:
        print(f"TaskDied: {error}")
    print(f"The creator, process {os.getpid()}, goes on, and has what the task left: {notes}")


@demo.command()
def cow() -> None:
    """Copied memory is shared until somebody writes: pages before and after, as the kernel counts them."""
    buffer = mmap.mmap(-1, _BUFFER_MB << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # EINVAL: a kernel without huge pages
        buffer.madvise(mmap.MADV_NOHUGEPAGE)
    _write_pages(buffer, _BUFFER_MB)
    to_task, from_task = os.pipe(), os.pipe()

    def body() -> list[tuple[int, int]]:
        seen = [_pages()]
        os.write(from_task[1], b"1")
        os.read(to_task[0], 1)  # the creator looks meanwhile
        _write_pages(buffer, _WRITTEN_MB)
        seen.append(_pages())
        os.write(from_task[1], b"2")
        os.read(to_task[0], 1)
        return seen

    alone = _pages()
    task = clone(body, flags=PROCESS)
    os.read(from_task[0], 1)
    beside = _pages()
    os.write(to_task[1], b"1")
    os.read(from_task[0], 1)
    written = _pages()
    os.write(to_task[1], b"2")
    task_beside, task_written = task.result()
    for end in (*to_task, *from_task):
        os.close(end)

    print(f"A buffer of {_BUFFER_MB} MB; the task gets a copy of it and writes to {_WRITTEN_MB} MB.")
    print(f"{'MB in memory, of all mappings':40}{'private':>9}{'shared':>9}")
    for what, (private, shared) in (
        ("creator, before the start", alone),
        ("creator, beside the task", beside),
        ("task, before it writes", task_beside),
        (f"task, {_WRITTEN_MB} MB written", task_written),
        ("creator, then", written),
    ):
        print(f"{what:40}{private / 1024:>9.1f}{shared / 1024:>9.1f}")
    print("The start copied no page of it: both saw the same ones. Each page that the task wrote to was copied then,")
    print("and both have one of their own since; the others are still shared.")


_BUFFER_MB = 64
_WRITTEN_MB = 16


def _write_pages(buffer: mmap.mmap, megabytes: int) -> None:
    for page in range(0, megabytes << 20, mmap.PAGESIZE):
        buffer[page] = buffer[page] + 1 & 0xFF


def _pages() -> tuple[int, int]:
    """kB that are mapped here alone, and elsewhere too; clean and dirty ones (proc(5), smaps_rollup)."""
    kilobytes = {"Private": 0, "Shared": 0}
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            kind, _, rest = line.partition("_")
            if rest.startswith(("Clean:", "Dirty:")) and kind in kilobytes:
                kilobytes[kind] += int(rest.split()[1])
    return kilobytes["Private"], kilobytes["Shared"]


@demo.command()
def namespaces() -> None:
    """A task that shares memory sits in namespaces of its own, and tells what it sees by the creator's dict."""
    seen: dict[str, list[str]] = {"creator": _surroundings()}
    outside = os.geteuid()

    def body() -> None:
        seen["task, at birth"] = _surroundings()
        with open("/proc/self/uid_map", "w") as file:
            file.write(f"0 {outside} 1")
        socket.sethostname("taskclone")
        seen["task, settled in"] = _surroundings()

    new = CloneFlags.NEWUSER | CloneFlags.NEWPID | CloneFlags.NEWNET | CloneFlags.NEWUTS
    try:
        task = clone(body, flags=SHARED | new)
    except StartError as error:
        raise click.ClickException(
            f"new namespaces were refused here: {error.strerror}. An ordinary user may have them only where user "
            "namespaces are allowed: see /proc/sys/user/max_user_namespaces, the distribution's own switch "
            "(kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) and, in a container, its "
            "seccomp profile"
        ) from None
    task.result()
    seen["creator, after"] = _surroundings()
    print(f"clone(body, flags={flag_names(task.flags)}) is process {task.pid} to its creator.")
    print(f"{'':18}{'pid':>8}{'uid':>8}   {'hostname':20}network interfaces")
    for who, (pid, uid, host, *interfaces) in seen.items():
        print(f"{who:18}{pid:>8}{uid:>8}   {host:20}{', '.join(interfaces)}")
    print("The lines of the task were written by itself, into a dict of the creator.")


def _surroundings() -> list[str]:
    """pid, uid, hostname, network interfaces."""
    return [str(os.getpid()), str(os.getuid()), socket.gethostname(), *(name for _, name in socket.if_nameindex())]

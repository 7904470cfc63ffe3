"""``taskclone demo``: the sample of clone's best-known article, and what it leads to."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time

import click

from taskclone import PROCESS, SHARED, THREAD, CloneFlags, Task, TaskDied, call, clone


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

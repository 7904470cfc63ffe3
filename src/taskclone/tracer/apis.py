"""The well-known functions that make tasks, each as a small program to trace. To add one, add a row to ``APIS``.

What an API starts (a function, a thread, a program) writes "body PID TID" to stdout, once: so it is known which of the
calls that were seen is the one that the API is for.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Literal

from taskclone.flags import SHARED, THREAD, CloneFlags
from taskclone.launch import clone

__all__ = ["APIS", "Api", "body", "body_program", "chosen", "run"]

Group = Literal["C", "Python", "taskclone"]


@dataclass(frozen=True, slots=True)
class Api:
    """One function that makes tasks.

    Attributes:
        name: how it is asked for.
        group: whose it is.
        call: what one writes to call it.
        run: calls it, in a Python process of its own, and returns when the body has ended; raises when anything fails.
            None for those of C, which the program c_api calls.
    """

    name: str
    group: Group
    call: str
    run: Callable[[], object] | None = None

    @property
    def argv(self) -> list[str]:
        """The program that calls it once, and makes no other task by itself."""
        if self.run is None:
            return [body_program()[0], self.name]
        return [sys.executable, "-P", "-c", f"from taskclone.tracer.apis import run; run({self.name!r})"]


def body_program() -> list[str]:
    """The argv of a program that is a body. Raises FileNotFoundError when it is not installed beside this file."""
    path = str(resources.files("taskclone.tracer").joinpath("c_api"))
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(errno.ENOENT, "a program of this package is missing or cannot be run", path)
    return [path, "body"]


SHELL: Final = "echo body $$ $$"
"""The same for a shell, which is then the body itself."""


def body() -> None:
    """The same as a function."""
    os.write(1, f"body {os.getpid()} {threading.get_native_id()}\n".encode())


def run(name: str) -> None:
    """Calls the API of this name, in this process."""
    (api,) = (api for api in APIS if api.name == name)
    if api.run is None:
        raise ValueError(f"{name} is called by a program in C")
    api.run()


def chosen(names: tuple[str, ...]) -> list[Api]:
    """The APIs that are asked for, in the order of the table; all of them when none is. ``subprocess`` stands for
    ``subprocess.shell`` and its kin as well.

    Raises ValueError for a name that is none.
    """
    for name in names:
        if not any(_is_meant(api, name) for api in APIS):
            raise ValueError(f"unknown API {name!r}; there are: {', '.join(api.name for api in APIS)}")
    return [api for api in APIS if not names or any(_is_meant(api, name) for name in names)]


def _is_meant(api: Api, name: str) -> bool:
    return api.name == name or api.name.startswith(f"{name}.")


# ---- how each is called ---------------------------------------------------------------------------------------------


def _well(status: int) -> None:
    if status:
        raise RuntimeError(f"the body ended with status {status:#x}")


def _reap(pid: int) -> None:
    _well(os.waitpid(pid, 0)[1])


def _os_fork() -> None:
    pid = os.fork()
    if pid:
        return _reap(pid)
    try:
        body()
    finally:
        os._exit(0 if sys.exception() is None else 1)


def _os_posix_spawn() -> None:
    program = body_program()
    _reap(os.posix_spawn(program[0], program, os.environ))


def _thread() -> None:
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


def _subprocess(program: Any = None, **options: Any) -> None:
    import subprocess

    subprocess.run(program or body_program(), check=True, **options)


def _multiprocessing(method: str) -> None:
    import multiprocessing

    process = multiprocessing.get_context(method).Process(target=body)  # type: ignore[attr-defined]
    process.start()
    process.join()
    _well(process.exitcode)


def _asyncio() -> None:
    import asyncio

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(*body_program())
        _well(await process.wait())

    asyncio.run(main())


def _shared_by_a_host() -> None:
    """A task of another thread than the main one is cloned by its host (taskclone.routes.shared)."""
    thread = threading.Thread(target=lambda: clone(body, flags=SHARED).result())
    thread.start()
    thread.join()


def _preexec_fn() -> None:
    _subprocess(preexec_fn=lambda: None)


def _in_place() -> None:
    clone(body, flags=SHARED | CloneFlags.VFORK).result()


APIS: Final[tuple[Api, ...]] = (
    Api("fork", "C", "fork()"),
    Api("vfork", "C", "vfork()"),
    Api("posix_spawn", "C", "posix_spawn()"),
    Api("system", "C", "system()"),
    Api("popen", "C", "popen()"),
    Api("pthread_create", "C", "pthread_create()"),
    Api("os.fork", "Python", "os.fork()", _os_fork),
    Api("os.posix_spawn", "Python", "os.posix_spawn(...)", _os_posix_spawn),
    Api("os.system", "Python", "os.system(...)", lambda: _well(os.system(SHELL))),
    Api("threading.Thread", "Python", "threading.Thread(...)", _thread),
    Api("subprocess", "Python", "subprocess.run(...)", _subprocess),
    Api("subprocess.close_fds", "Python", "subprocess.run(..., close_fds=False)", lambda: _subprocess(close_fds=False)),
    Api("subprocess.preexec_fn", "Python", "subprocess.run(..., preexec_fn=f)", _preexec_fn),
    Api("subprocess.shell", "Python", "subprocess.run(..., shell=True)", lambda: _subprocess(SHELL, shell=True)),
    Api("multiprocessing.fork", "Python", "multiprocessing: fork", lambda: _multiprocessing("fork")),
    Api("multiprocessing.spawn", "Python", "multiprocessing: spawn", lambda: _multiprocessing("spawn")),
    Api("multiprocessing.forkserver", "Python", "multiprocessing: forkserver", lambda: _multiprocessing("forkserver")),
    Api("asyncio.subprocess", "Python", "asyncio subprocess", _asyncio),
    Api("taskclone.copied", "taskclone", "clone(f)", lambda: clone(body).result()),
    Api("taskclone.shared", "taskclone", "clone(f, flags=SHARED)", lambda: clone(body, flags=SHARED).result()),
    Api("taskclone.shared.host", "taskclone", "clone(f, flags=SHARED) in a thread", _shared_by_a_host),
    Api("taskclone.in_place", "taskclone", "clone(f, flags=SHARED | VFORK)", _in_place),
    Api("taskclone.thread", "taskclone", "clone(f, flags=THREAD)", lambda: clone(body, flags=THREAD).result()),
    Api("taskclone.program", "taskclone", "clone(argv)", lambda: _well(clone(body_program()).result())),
)

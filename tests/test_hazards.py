"""What sharing memory under another pid brings with it: each hazard of docs/not-supported.md, shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from creator import run

DOCUMENT = Path(__file__).parent.parent / "docs" / "not-supported.md"


def lines_of(script: str, *options: str) -> list[str]:
    status, out, err = run(script, *options)
    assert (status, err) == (0, "")
    return out.splitlines()


def test_a_file_left_behind_without_files() -> None:
    """Files and sockets are looked for (tests/test_left_files.py); what the collector does not know is not found."""
    script = """
import select
kept = []
def body():
    kept.append(select.epoll())
    return kept[0].fileno()
number = call(body, flags="VM")
mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(number)]
say(number in mine)
kept.clear()
try: os.fstat(number)
except OSError: say("closed by the object that the task has left")
"""
    assert lines_of(script, "-W", "ignore") == ["True", "closed by the object that the task has left"]


def test_a_library_that_remembers_a_pid() -> None:
    script = """
class Pool:
    pid, connections = os.getpid(), ["one"]
    def get(self):
        if os.getpid() != self.pid:  # as after a fork: what is there is another process's
            self.pid, self.connections = os.getpid(), []
        return len(self.connections)
pool = Pool()
say(call(pool.get, flags=SHARED), call(pool.get, flags=THREAD), pool.connections)
"""
    assert lines_of(script) == ["0 0 []"]


def test_a_lock_of_the_dead() -> None:
    script = """
lock = threading.Lock()
def body():
    lock.acquire()
    os.abort()
try: call(body, flags=SHARED)
except TaskDied as died: say(lock.locked())
"""
    assert lines_of(script) == ["True"]


def test_a_thread_that_is_gone_from_threading() -> None:
    script = """
thread = call(threading.current_thread, flags=SHARED)
say(thread in threading.enumerate(), thread is threading.current_thread(), threading.active_count())
"""
    assert lines_of(script) == ["False False 1"]


def test_what_is_the_whole_process_of_the_c_library() -> None:
    script = """
import locale
call(locale.setlocale, locale.LC_ALL, "C.UTF-8", flags=SHARED)
say(locale.setlocale(locale.LC_ALL))
call(os.putenv, "TASKCLONE_HAZARD", "x", flags=SHARED)
say(call(["sh", "-c", 'test "$TASKCLONE_HAZARD" = x; exit $?'], setup=ChildSetup(environment=dict(os.environ))))
import ctypes
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
say(libc.getenv(b"TASKCLONE_HAZARD"))
"""
    assert lines_of(script) == ["C.UTF-8", "1", "b'x'"]


def test_exit_of_the_c_library_runs_the_creators_handlers() -> None:
    script = """
import ctypes
libc = ctypes.CDLL(None)
ran = ctypes.c_int()
handler = ctypes.CFUNCTYPE(None)(lambda: None)
written = ctypes.create_string_buffer(b"handler\\n")
libc.on_exit(ctypes.cast(libc.write, ctypes.c_void_p), ctypes.c_void_p())  # write(status, NULL, ...): harmless
def body(): libc.exit(5)
try: call(body, flags=SHARED)
except TaskDied as died: say(died.code)
os._exit(0)  # since glibc 2.41 the creator's own exit() waits for a lock that the task has kept
"""
    assert lines_of(script)[-1:] == ["5"]


@pytest.mark.root
def test_dumpable_is_the_memorys() -> None:
    script = """
import ctypes
libc = ctypes.CDLL(None)
say(libc.prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
for flags in (SHARED, SHARED | VFORK):
    task = clone(lambda: (os.setuid(65534), libc.prctl(3, 0, 0, 0, 0))[1], flags=flags)
    task.wait(10)
    say(task.result() == 1, os.getuid(), libc.prctl(3, 0, 0, 0, 0))
go_on, changed = os.pipe(), os.pipe()
def body(): os.setuid(65534), os.write(changed[1], b"x"), os.read(go_on[0], 1)
tasks = [clone(body, flags=SHARED) for _ in range(2)]
for _ in tasks: os.read(changed[0], 1)
for number in range(2):
    os.write(go_on[1], b"x")
    while sum(task.done() for task in tasks) == number: time.sleep(0.01)
    for task in tasks:
        if task.done(): task.wait(10)
    say(libc.prctl(3, 0, 0, 0, 0))
"""
    # While the other one has the new id it stays so.
    lines = lines_of(script)
    assert lines[:3] == ["1", "False 0 1", "False 0 1"]
    assert lines[4:] == ["1"]
    assert lines[3] != "1"


def test_the_oom_score_is_the_memorys() -> None:
    script = """
def score(): return open("/proc/self/oom_score_adj").read().strip()
before = int(score())
def body():
    with open("/proc/self/oom_score_adj", "w") as file: file.write(str(before + 7))
call(body, flags=SHARED)
say(int(score()) - before)
"""
    assert lines_of(script, "-W", "ignore") == ["7"]


def test_a_limit_on_memory_is_compared_with_all_of_it() -> None:
    script = """
import mmap, resource
def body():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))  # the task's own, and long exceeded
    try: mmap.mmap(-1, 1 << 22)
    except OSError as error: return error.strerror
say(call(body, flags=SHARED), "/", len(mmap.mmap(-1, 1 << 22)))
"""
    assert lines_of(script) == ["Cannot allocate memory / 4194304"]


def test_each_hazard_is_in_the_document() -> None:
    text = DOCUMENT.read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    here = {name for name in globals() if name.startswith("test_")} - {"test_each_hazard_is_in_the_document"}
    assert here <= named

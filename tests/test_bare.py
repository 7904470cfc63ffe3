"""Bare copies: in which company they are refused, which handlers run, and what sharing descriptors alone can do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from creator import run

NEEDS_LIBRARY = pytest.mark.skipif("TASKCLONE_BUILD" not in os.environ, reason="needs the C test library: `make test`")

PRELUDE = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
import ctypes, gc, subprocess
from proc import descriptors, pipe, state_of, until
testing = os.environ.get("TASKCLONE_BUILD", "") + "/csrc/testing/"
def attempt(**fields):
    try:
        return call(abs, -1, **fields)
    except UnsupportedOperation as error:
        return str(error).split(" beside")[0]
"""
REFUSED = "this process has other threads"


def lines_of(script: str, *options: str) -> list[str]:
    status, out, err = run(PRELUDE + script, *options)
    assert (status, err) == (0, "")
    return out.splitlines()


# ---- other threads --------------------------------------------------------------------------------------------------


def test_alone_it_is_started() -> None:
    assert lines_of("for flags in ('FILES', 'FS', 'SYSVSEM', 'IO', 'FILES|FS'): say(attempt(flags=flags))") == ["1"] * 5


def test_beside_a_thread_it_is_refused_unless_the_caller_insists() -> None:
    script = """
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
say(attempt(flags="FILES"))
say(attempt(flags="FILES", bare=True))
say(attempt(bare=True))
try: fork("FS")
except UnsupportedOperation as error: say("bare=True" in str(error), "SYSVSEM" in str(error))
stop.set()
thread.join()
say(attempt(flags="FILES"))
"""
    assert lines_of(script) == [REFUSED, "1", "1", "True True", "1"]


def test_a_thread_that_was_joined_does_not_count() -> None:
    script = """
for _ in range(60):
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert attempt(flags="FILES") == 1
say("fine")
"""
    assert lines_of(script) == ["fine"]


@NEEDS_LIBRARY
def test_a_thread_that_only_the_kernel_knows() -> None:
    script = """
ctypes.CDLL(testing + "libcrashes.so").start_thread(60)
say(threading.active_count(), attempt(flags="FILES"))
os._exit(0)
"""
    assert lines_of(script) == [f"1 {REFUSED}"]


def test_hosts_that_idle_do_not_count_and_tasks_do() -> None:
    script = """
for _ in range(50):
    assert call(abs, -1, flags=SHARED) == 1
    assert attempt(flags="FILES") == 1
assert [task.result() for task in [clone(abs, -1, flags=SHARED) for _ in range(6)]] == [1] * 6
say(stats()["idle_hosts"] > 1, attempt(flags="FILES"))
with pipe() as (read_end, write_end):
    for flags in (SHARED, THREAD):
        task = clone(os.read, read_end, 1, flags=flags)
        task.tid
        say(attempt(flags="FILES"))
        os.write(write_end, b"x")
        task.wait()
say(attempt(flags="FILES"))
"""
    assert lines_of(script) == ["True 1", REFUSED, REFUSED, "1"]


def test_the_thread_of_an_executor_does_not_count() -> None:
    script = """
with Executor(1) as executor:
    assert executor.submit(abs, -1).result() == 1
    say(threading.active_count(), attempt(flags="FILES"))
    seen = executor.submit(abs, -2)
    seen.add_done_callback(lambda future: say(threading.active_count(), attempt(flags="FILES")))
    seen.result()
"""
    assert lines_of(script) == ["2 1", f"2 {REFUSED}"], "in a callback it is the caller, and the main thread the other"


def test_an_executor_refuses_bare_copies() -> None:
    script = """
try: Executor(1, "FILES")
except UnsupportedOperation as error: say("bare" in str(error))
"""
    assert lines_of(script) == ["True"]


def test_a_thread_that_a_hook_starts_counts() -> None:
    script = """
stop = threading.Event()
threads = []
def before():
    threads.append(threading.Thread(target=stop.wait))
    threads[-1].start()
os.register_at_fork(before=before)
say(attempt(flags="FILES"))
stop.set()
[thread.join() for thread in threads]
"""
    assert lines_of(script) == [REFUSED]


def test_a_task_that_shares_memory_cannot_make_one() -> None:
    script = """
for fields in ({"flags": "FILES"}, {"bare": True}):
    say(call(lambda: attempt(**fields), flags=SHARED)[:53])
"""
    assert lines_of(script) == ["a task that shares memory cannot make a bare copy: it"] * 2


def test_by_another_thread_than_the_main_one() -> None:
    """To the interpreter of such a copy nobody is the main thread: no handlers, and SIGTERM ends it at once."""
    script = """
def work():
    task = clone(time.sleep, 60, bare=True)
    task.terminate()
    say(task.wait().signal, call(abs, -1, bare=True))
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    assert lines_of(script) == ["15 1"]


# ---- why ------------------------------------------------------------------------------------------------------------


def test_a_library_with_threads_works_in_a_fork_and_in_a_relay_and_is_why_bare_is_refused() -> None:
    """OpenBLAS's pool is gone in any copy; only its handler for forks tells it so."""
    pytest.importorskip("numpy")
    script = """
import numpy
os.sched_setaffinity(0, range(os.cpu_count()))
matrix = numpy.ones((400, 400))
def product(): return float((matrix @ matrix).sum())
product()
if len(os.listdir("/proc/self/task")) == 1:
    say("no threads")
    os._exit(0)
say(attempt(flags="FILES"))
try: say(call(product, bare=True, timeout=2))
except TimeoutError: say("hangs")
for flags in ("", "UNTRACED", "VFORK"):
    say(call(product, flags=flags, timeout=None if flags == "VFORK" else 15))
    product()  # its handler before a fork ends the pool
os._exit(0)
"""
    lines = lines_of(script)
    if lines == ["no threads"]:
        pytest.skip("this BLAS has no threads here")
    assert lines == [REFUSED, "hangs"] + [str(400.0**3)] * 3


# ---- handlers -------------------------------------------------------------------------------------------------------


def test_hooks_of_the_interpreter() -> None:
    """In the order of os.fork: before last to first, after first to last; in a relay only in the task itself."""
    script = """
seen = []
for name in ("a", "b"):
    os.register_at_fork(
        before=lambda name=name: seen.append(f"before-{name}"),
        after_in_parent=lambda name=name: seen.append(f"parent-{name}"),
        after_in_child=lambda name=name: seen.append(f"child-{name}"),
    )
forms = [{"flags": names} for names in ("", "UNTRACED", "NEWUSER|NEWPID", "FS", "FILES")]
for fields in (*forms, {"bare": True}):
    seen.clear()
    say(*call(lambda: list(seen), **fields), "|", *seen)
seen.clear()
pid = os.fork()
if not pid:
    say(*seen, "|")
    os._exit(0)
os.waitpid(pid, 0)
say(*seen)
"""
    *ours, files, bare, in_child, in_parent = lines_of(script)
    assert ours == [f"{in_child} {in_parent}"] * 4
    # What others do in the child they would do to the creator's descriptors.
    assert files == f"{in_child.replace('child-a child-b ', '')} {in_parent}"
    assert bare == "|"


def test_the_audit_event_and_random_numbers() -> None:
    script = """
import random
events = []
sys.addaudithook(lambda event, args: events.append(event) if event == "os.fork" else None)
random.seed(1)
state = random.getstate()
for fields in ({}, {"flags": "UNTRACED"}, {"flags": "FILES"}, {"bare": True}):
    say(call(lambda: random.getstate() == state, **fields))
say(len(events))
sys.addaudithook(lambda event, args: [][0] if event == "os.fork" else None)
for fields in ({}, {"flags": "UNTRACED"}, {"flags": "FILES"}, {"bare": True}):
    try: clone(int, **fields)
    except IndexError: say("vetoed")
"""
    assert lines_of(script) == ["False"] * 3 + ["True", "4"] + ["vetoed"] * 4


def test_a_signal_is_for_one_of_the_two() -> None:
    """Those that come all the time are the creator's: its timer is not inherited, nor the note that one has come."""
    script = """
handled = set()
signal.signal(signal.SIGALRM, lambda number, frame: handled.add(os.getpid()))
def body():
    for _ in range(3): os.getpid()
    return handled
me, plans = os.getpid(), [Plan(bare=True), Plan("FILES"), Plan("UNTRACED")]
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for number in range(60):
    seen = plans[number % 3].start(body).result()
    assert seen <= {me}, (seen, me)
signal.setitimer(signal.ITIMER_REAL, 0)
say(handled == {me})
"""
    assert lines_of(script) == ["True"]


# ---- FILES without VM -----------------------------------------------------------------------------------------------


def test_what_a_copy_drops_of_the_creators_is_closed_in_the_creator() -> None:
    """The hazard of this set, and why it is documented: the object is a copy, the descriptor is not. (What only the
    collector would find is left alone: tests/test_copies_and_descriptors.py.)"""
    script = """
file = open(os.devnull)
number = file.fileno()
def body():
    global file
    file = None
call(body, bare=True)
say(number in descriptors())
call(body, flags="FILES")
say(number in descriptors())
os._exit(0)  # as for the object: its descriptor is gone
"""
    assert lines_of(script, "-W", "ignore::ResourceWarning") == ["True", "False"]


def test_what_others_do_after_a_fork_does_not_reach_the_creators() -> None:
    script = """
import random
file = open(os.devnull)
os.register_at_fork(after_in_child=lambda: os.close(file.fileno()))
def is_open():
    try:
        return bool(os.fstat(file.fileno()))
    except OSError:
        return False
copy = fork(flags="FILES")
if copy is None:
    os._exit(is_open())
say(copy.wait(10).code, call(is_open))
waiting = threading.Event()
other = threading.Thread(target=waiting.wait)
other.start()
say(call(is_open, flags="FILES", bare=True))
say(call(threading.active_count, flags="FILES", bare=True))  # the interpreter's own steps are taken
say(call(random.random, flags="FILES", bare=True) != random.random())
waiting.set()
other.join()
say(is_open())
"""
    expected = ["1 False", "True", "1", "True", "True"]
    assert lines_of(script, "-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning") == expected


def test_our_own_objects_do_not() -> None:
    """Tasks and records that a copy drops: of children that run, that have ended, and that nobody holds."""
    script = """
with pipe() as (read_end, write_end):
    tasks = [clone(os.read, read_end, 1, daemon=True), clone(["sleep", "60"], daemon=True),
             clone(os.read, read_end, 1, flags="FILES", daemon=True), clone(bytes, 10**6)]
    pidfds = [task.fileno() for task in tasks]
    clone(os.read, read_end, 1, flags="FILES", daemon=True)
    tasks[3].wait()
    before = descriptors()
    def body():
        tasks.clear()
        gc.collect()
        return call(abs, -1)
    say(call(body, flags="FILES"))
    say([descriptors()[fd] == before[fd] for fd in pidfds], set(before) <= set(descriptors()))
    for task in tasks[:3]:
        task.kill()
    say(len(tasks[3].result()))
    os.write(write_end, b"x")
"""
    assert lines_of(script) == ["1", "[True, True, True, True] True", "1000000"]


def test_a_forgotten_copy_does_not_write_its_outcome_into_somebody_elses_file() -> None:
    """Its record's descriptor is the creator's, and must stay open until it has ended."""
    script = """
with pipe() as (read_end, write_end):
    def body():
        os.read(read_end, 1)
        return bytes(300_000)
    pid = clone(body, flags="FILES", daemon=True).pid
    files = [open(f"/tmp/taskclone-test-{os.getpid()}-{number}", "w+b") for number in range(20)]
    os.write(write_end, b"x")
    until(lambda: state_of(pid) == "Z", "its end")
    say([os.fstat(file.fileno()).st_size for file in files] == [0] * 20)
    for file in files: os.unlink(file.name)
    for task in [clone(["true"]) for _ in range(70)]: task.wait()  # enough for a sweep
    say(state_of(pid) == "", [name for name in descriptors().values() if "memfd" in name])
"""
    assert lines_of(script, "-W", "ignore::ResourceWarning") == ["True", "True []"]


@pytest.mark.root
def test_setuid_in_a_copy_beside_hosts_that_are_not_there() -> None:
    """libc signals every thread on its list for this; the list is the creator's."""
    script = """
assert [task.result() for task in [clone(abs, -1, flags=SHARED) for _ in range(4)]] == [1] * 4
def body():
    os.setuid(65534)
    return os.getuid()
say(call(body, flags="FILES", timeout=15), call(body, bare=True, timeout=15), os.getuid())
"""
    assert lines_of(script) == ["65534 65534 0"]

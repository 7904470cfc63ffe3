"""PARENT: a task that is its creator's sibling, for which another process is to wait."""

from __future__ import annotations

import signal

import pytest

from siblings import lines_of
from taskclone import ChildSetup, CloneFlags, FlagError, UnsupportedOperation, clone

F = CloneFlags
pytestmark = pytest.mark.usefixtures("nothing_left")

REAPS = pytest.mark.parametrize("reaps", [True, False], ids=["parent-reaps", "parent-does-not"])


@REAPS
@pytest.mark.parametrize("flags", ["PARENT", "PARENT|FILES", "PARENT|NEWUTS|NEWUSER"])
def test_it_is_the_parents_child_and_leaves_its_outcome(reaps: bool, flags: str) -> None:
    script = f"""
say(call(os.getppid, flags="{flags}") == parent, call(divmod, 7, 2, flags="{flags}"))
try: call(int, "x", flags="{flags}")
except ValueError as error: say(error)
"""
    expected = ["True (3, 1)", "invalid literal for int() with base 10: 'x'"]
    assert lines_of(script, reaps) == expected


@REAPS
def test_how_it_ended_is_known(reaps: bool) -> None:
    """From /proc while it is a zombie, from the pidfd afterwards (Linux 6.15)."""
    script = """
for task in (clone(os._exit, 5, flags="PARENT"), clone(os.abort, flags="PARENT"),
             clone(["sh", "-c", "exit 6"], flags="PARENT")):
    status = task.wait(10)
    say(status.code, status.signal and signal.Signals(status.signal).name, status.source in ("proc", "pidfd"))
task = clone(time.sleep, 100, flags="PARENT")
say(task.running())
task.kill()
say(signal.Signals(task.wait(10).signal).name)
with clone(["sleep", "100"], flags="PARENT") as task:
    task.terminate()
    say(signal.Signals(task.wait(10).signal).name)
copy = fork("PARENT")
if copy is None: os._exit(9)
say(copy.result(10))
"""
    assert lines_of(script, reaps) == [
        "5 None True",
        "None SIGABRT True",
        "6 None True",
        "True",
        "SIGKILL",
        "SIGTERM",
        "9",
    ]


def test_setup_and_failures() -> None:
    script = """
say(call(os.getcwd, flags="PARENT", setup=ChildSetup(cwd="/usr")))
for body in (os.getcwd, ["true"]):
    try: call(body, flags="PARENT", setup=ChildSetup(cwd="/no/such"))
    except StartError as error: say(error.step, error.errno)
"""
    assert lines_of(script, True) == ["/usr", "chdir 2", "chdir 2"]


def test_the_creators_exit_waits_for_it() -> None:
    script = """
clone(lambda: (time.sleep(0.3), say("body")), flags="PARENT")
clone(time.sleep, 100, flags="PARENT", daemon=True)
import atexit
atexit.register(say, "ends")
"""
    assert lines_of("import warnings; warnings.simplefilter('ignore')\n" + script, True) == ["ends", "body"]


def test_what_does_not_go_with_it() -> None:
    with pytest.raises(UnsupportedOperation, match="outlive the owner of its memory"):
        clone(int, flags=F.VM | F.PARENT)
    with pytest.raises(FlagError, match="would come at that one's end"):
        clone(int, flags=F.PARENT, setup=ChildSetup(parent_death_signal=signal.SIGTERM))
    with pytest.raises(FlagError) as caught:
        clone(int, flags=F.PARENT, exit_signal=signal.SIGCHLD)
    assert caught.value.rule == "exit-signal-parent-thread"

"""The tracer's own descriptors: never among the program's, and a clear word where none is to be had."""

from __future__ import annotations

import errno

import pytest
from scripts import start

from proc import no_descriptors_left
from taskclone.tracer.trace import Trace

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_where_no_descriptor_is_to_be_had_the_call_that_failed_is_named() -> None:
    with no_descriptors_left(), pytest.raises(OSError, match="pipe2") as caught, Trace(["/bin/true"]):
        pass
    assert caught.value.errno == errno.EMFILE


def without_streams(closed: str, trace: str) -> str:
    """What becomes of a program that writes to both its outputs, traced by a creator that has closed these."""
    creator = start(f"""
from taskclone.errors import StartError
os.dup2(1, 20)
os.dup2(os.open("/dev/null", os.O_RDWR), 30)
for fd in {closed}: os.close(fd)
try:
    with Trace(["/bin/sh", "-c", "echo one; echo two >&2"], {trace}) as trace:
        kinds = [type(record).__name__ for record in trace.records()]
    answer = f"{{kinds[-1]}} {{trace.status}}"
except StartError as error:
    answer = f"{{error.step}} {{errno.errorcode[error.errno]}}"
os.write(20, answer.encode())
""")
    out, err = creator.communicate(timeout=60)
    assert err == ""
    return out


@pytest.mark.parametrize("closed", ["(0,)", "(0, 1)", "(0, 1, 2)"])
def test_a_caller_without_streams_has_none_to_give(closed: str) -> None:
    """Else the program would write into the pipe of the records."""
    assert without_streams(closed, "") == "streams EBADF"


@pytest.mark.parametrize("closed", ["(0,)", "(1,)", "(0, 1)", "(0, 1, 2)"])
def test_a_caller_without_streams_can_give_others(closed: str) -> None:
    assert without_streams(closed, "streams=(30, 30, 30)") == "End 0"

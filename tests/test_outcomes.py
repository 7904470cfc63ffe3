"""Values on their way out of copied memory: large ones are mapped, and nothing of that stays behind."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import platform
import resource
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proc import descriptors
from taskclone import OutcomeError, TaskDied, call, clone, parcel

pytestmark = pytest.mark.usefixtures("nothing_left")

MB = 1 << 20


def mapped() -> int:
    """How many pieces of records are mapped here."""
    return Path("/proc/self/maps").read_text().count("/memfd:taskclone")


def in_kb(name: str, file: str) -> int:
    line = next(line for line in Path(file).read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1])


# ---- arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, parcel.LARGE // 8 - 1, parcel.LARGE // 8, 1_000_003])
def test_an_array_of_any_size_comes_back_and_can_be_written_to(size: int) -> None:
    array = call(np.arange, size)
    assert array.dtype == np.arange(1).dtype
    assert np.array_equal(array, np.arange(size))
    assert array.flags.writeable
    array[:] = 7
    assert (array == 7).all()


def fortran() -> Any:
    return np.asfortranarray(np.arange(600_000).reshape(600, 1000))


def read_only() -> Any:
    array = np.arange(500_000)
    array.flags.writeable = False
    return array


def every_second() -> Any:
    return np.arange(1_000_000)[::2]


def of_objects() -> Any:
    return np.array([{"a": 1}, None, "text"] * 50_000, dtype=object)


def of_records() -> Any:
    return np.zeros(100_000, dtype=[("x", "f8"), ("name", "S5")])


@pytest.mark.parametrize("make", [fortran, read_only, every_second, of_objects, of_records])
def test_arrays_of_every_kind(make: Any) -> None:
    array, same = call(make), make()
    assert array.dtype == same.dtype
    assert np.array_equal(array, same)
    assert array.flags.writeable == same.flags.writeable
    assert array.flags.f_contiguous == same.flags.f_contiguous or make is every_second


def test_the_mapping_lives_as_long_as_the_array_and_no_descriptor_does() -> None:
    before = descriptors()
    task = clone(lambda: {"a": np.ones(MB), "b": [np.zeros(MB), 5]})
    result = task.result(20)
    assert not [where for where in descriptors().values() if "memfd:taskclone" in where], "the record is closed"
    del task
    assert descriptors() == before
    assert mapped() == 2
    first = result.pop("a")
    del result
    assert mapped() == 1
    view = first[10:20]
    del first
    assert mapped() == 1
    assert view.sum() == 10
    del view
    assert mapped() == 0


def test_the_same_array_twice_is_one_array() -> None:
    def body() -> Any:
        array = np.ones(MB)
        return array, array

    first, second = call(body)
    assert first is second
    assert mapped() == 1


def test_later_tasks_have_a_copy_of_the_array() -> None:
    array = call(np.zeros, MB)

    def change() -> float:
        array[:] = 3
        return float(array.sum())

    assert call(change) == 3 * MB
    assert array.sum() == 0
    task = clone(lambda: float(array[5]))
    array[:] = 9
    assert task.result(10) in (0.0, 9.0), "before or after the fork, never half"
    assert call(lambda: float(array.sum())) == 9 * MB


def test_more_large_buffers_than_get_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "_MOST_BUFFERS", 3)
    arrays = call(lambda: [np.full(MB, number) for number in range(7)])
    assert mapped() == 3
    assert [int(array[-1]) for array in arrays] == list(range(7))


def test_a_buffer_that_is_no_array() -> None:
    data = bytearray(os.urandom(MB))
    view = call(lambda: pickle.PickleBuffer(data))
    assert isinstance(view, memoryview)
    assert view == data
    view[0] ^= 1
    assert view != data
    assert call(lambda: pickle.PickleBuffer(bytes(data))).readonly


@pytest.mark.parametrize("size", [4000, 4096, 65536, 5 * MB + 1])
def test_bytes_and_text_of_any_size(size: int) -> None:
    assert call(lambda: (b"x" * size, "y" * size, bytearray(size), [7] * size)) == (
        b"x" * size, "y" * size, bytearray(size), [7] * size,
    )  # fmt: skip


def test_a_large_array_in_an_exception() -> None:
    def body() -> None:
        raise ValueError(np.ones(MB))

    error = clone(body).exception(20)
    assert isinstance(error, ValueError)
    assert error.args[0].sum() == MB


def test_an_array_of_1_gb_is_copied_once() -> None:
    if in_kb("MemAvailable", "/proc/meminfo") < 3 * MB:
        pytest.skip("needs 3 GB of free memory")
    anonymous = in_kb("RssAnon", "/proc/self/status")
    array = call(lambda: np.full(1 << 27, 2.5), timeout=120)
    assert in_kb("RssAnon", "/proc/self/status") - anonymous < 100_000, "kB: nothing was copied here"
    assert array.nbytes == 1 << 30
    assert float(array.sum()) == 2.5 * (1 << 27)
    array[1::MB] = 1
    assert float(array.sum()) == 2.5 * (1 << 27) - 1.5 * 128
    del array
    assert mapped() == 0


# ---- no room --------------------------------------------------------------------------------------------------------

_PWRITE64 = {"x86_64": 18, "aarch64": 68}


def let_pwrite_fail(number: int) -> None:
    """A seccomp filter, as in seccomp(2): pwrite64 fails with this errno in the calling process."""

    def step(code: int, true: int, false: int, value: int) -> bytes:
        return struct.pack("HBBI", code, true, false, value)

    program = (
        step(0x20, 0, 0, 0)  # load the number of the system call
        + step(0x15, 0, 1, _PWRITE64[platform.machine()])  # jump if equal
        + step(0x06, 0, 0, 0x00050000 | number)  # SECCOMP_RET_ERRNO
        + step(0x06, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ALLOW
    )
    code = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", 4, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
    assert libc.prctl(22, 2, ctypes.create_string_buffer(header), 0, 0) == 0, "PR_SET_SECCOMP"


RESULTS = pytest.mark.parametrize("result", [b"x" * MB, np.ones(MB), [b"y"] * MB], ids=["bytes", "array", "list"])


@RESULTS
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM], ids=["ENOSPC", "ENOMEM"])
def test_no_room_for_the_outcome_is_said(result: Any, number: int) -> None:
    def body() -> Any:
        let_pwrite_fail(number)
        return result

    task = clone(body)
    with pytest.raises(OutcomeError, match=f"no room for the outcome.*{os.strerror(number)}"):
        task.result(20)
    assert task.wait().code == 1


@RESULTS
def test_a_limit_of_file_sizes_counts_for_outcomes(result: Any) -> None:
    def body() -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MB // 2, MB // 2))
        return result

    with pytest.raises(OutcomeError, match=r"no room for the outcome.*RLIMIT_FSIZE"):
        call(body, timeout=20)


def test_no_room_for_an_exception_is_said_too() -> None:
    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        raise ValueError("x" * MB)

    def body() -> None:
        let_pwrite_fail(errno.ENOSPC)
        deep(200)

    task = clone(body)
    with pytest.raises(OutcomeError, match="no room for the outcome"):
        task.result(20)
    assert task.wait().code == 1


# ---- the end comes first --------------------------------------------------------------------------------------------


class EndsItself:
    """Asks for its task's end in the middle of being pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), self.number)
        return EndsItself, (self.number,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_task_that_is_ended_while_it_leaves_its_outcome(number: signal.Signals) -> None:
    with pytest.raises(TaskDied) as caught:
        call(lambda: [b"x" * MB, EndsItself(number), b"y" * MB], timeout=20)
    assert caught.value.signal == number

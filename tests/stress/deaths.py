"""Ends and crashes of every kind at random moments, from four threads, one of them the main one.

    deaths.py ENDS CRASHES [SEED]

Prints what is left behind, and exits 1 when that is more than the counted states of the dead, each of which keeps its
host's stack, and as much of that in memory as it had touched: all of it after an overflow. So for many, a small one:

    sh -c 'ulimit -s 512; exec python tests/stress/deaths.py 2000 2000'

test_deaths_storm.py runs few.
"""

from __future__ import annotations

import faulthandler
import gc
import io
import logging
import mmap
import os
import queue
import random
import resource
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import storm
from storm import IN_PLACE, crashes, crashes_with_lock, left

import taskclone
from taskclone import SHARED, Task, TaskDied, clone

THREADS = 4
STATE = 96 << 10
"""Bytes of resident memory that a dead task may leave: its state, what its host's stack has touched, its record."""
SLACK = 16 << 20
"""What else may come and go: malloc's arenas, the data of whoever looks."""
STALL = 120.0
"""Seconds without an end after which it is a hang: the stacks are printed and the creator aborts."""

# ---- bodies ---------------------------------------------------------------------------------------------------------

noise = os.urandom(1 << 16)
kept: list[object] = []
with tempfile.TemporaryFile() as file:
    file.truncate(4096)
    beyond = mmap.mmap(file.fileno(), 4096)
    file.truncate(0)


def allocate() -> None:
    while True:
        [bytearray(n) for n in range(500)]


def compress() -> None:
    while True:
        zlib.compress(noise)


def condition() -> None:
    with (waiting := threading.Condition()):
        waiting.wait()


def get_from_queue() -> None:
    queue.Queue[int]().get()


def event() -> None:
    threading.Event().wait()


def timed_event() -> None:
    threading.Event().wait(3600)


def hold_rlock() -> None:
    with threading.RLock():
        time.sleep(3600)


def bus() -> None:
    print(beyond[0])


def divide() -> None:
    crashes_with_lock.divide(1, 0)


def not_an_instruction() -> None:
    crashes.not_an_instruction()


def exit_at_once() -> None:
    os._exit(9)


def in_a_handler() -> None:
    logging.getLogger("dying").error("last words")


def in_a_file() -> None:
    file = io.BufferedWriter(Dying())
    file.write(b"x")
    file.flush()


def with_its_frame_kept() -> None:
    kept.append(sys._getframe())
    del kept[:-50]
    crashes_with_lock.write_to(8)


class Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        crashes_with_lock.write_to(8)


class Dying(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        crashes_with_lock.write_to(8)
        return 0


Body = Callable[[], None]
ENDS: list[Body] = [*storm.ENDS, allocate, compress, condition, get_from_queue, event, timed_event, hold_rlock,
                    lambda: crashes.spin_for_ever()]  # fmt: skip
CRASHES: list[Body] = [*storm.CRASHES, bus, divide, not_an_instruction, exit_at_once, in_a_handler, in_a_file,
                       with_its_frame_kept]  # fmt: skip

# ---- the storm ------------------------------------------------------------------------------------------------------


def end(body: Body, chance: random.Random) -> None:
    task: Task[None] = clone(body, flags=SHARED)
    time.sleep(chance.random() * 0.004)
    if chance.random() < 0.5:
        task.kill(timeout=60)
    else:
        task.terminate(0.01, timeout=60)
    error = task.exception(60)
    assert isinstance(error, TaskDied), error
    assert error.code == 143 or error.signal == 9, error


def crash(body: Body, chance: random.Random) -> None:
    error = clone(body, flags=IN_PLACE if chance.random() < 0.4 else SHARED).exception(60)
    assert isinstance(error, TaskDied), error
    assert error.signal in (4, 6, 7, 8, 11) or error.code == 9, error
    kinds = {text.partition(":")[0] for text in error.damage}
    assert kinds <= {in_a_handler: {"logging"}, in_a_file: {"buffered file"}}.get(body, set()), error


def run(ends: int, crashes: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    jobs = [(end, ENDS[n % len(ENDS)]) for n in range(ends)]
    jobs += [(crash, CRASHES[n % len(CRASHES)]) for n in range(crashes)]
    chance.shuffle(jobs)
    failures: list[str] = []

    def work(part: int) -> None:
        own = random.Random(seed + part)
        for job, body in jobs[part::THREADS]:
            faulthandler.dump_traceback_later(STALL, exit=True)  # anew after each
            try:
                job(body, own)
            except BaseException as error:
                failures.append(f"{job.__name__} {getattr(body, '__name__', body)}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(part,)) for part in range(1, THREADS)]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    faulthandler.cancel_dump_traceback_later()
    return failures


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(ends: int, crashes: int, seed: int) -> bool:
    logging.getLogger("dying").addHandler(Handler())
    failures = run(len(ENDS), len(CRASHES), seed)  # what is made once
    gc.collect()
    before, memory, dead = left(), resident(), taskclone.stats()["abandoned_states"]
    began = time.monotonic()
    failures += run(ends, crashes, seed)
    took = time.monotonic() - began
    gc.collect()
    assert clone(lambda: "well", flags=SHARED).result(10) == "well"
    after, stats = left(), taskclone.stats()
    dead = stats["abandoned_states"] - dead
    grown = resident() - memory
    overflows = crashes // len(CRASHES) + 1
    flat = grown < SLACK + dead * STATE + overflows * resource.getrlimit(resource.RLIMIT_STACK)[0]
    print(
        f"seed {seed}: {ends} ends and {crashes} crashes in {took:.1f} s, {len(failures)} failures",
        *failures[:20],
        sep="\n",
    )
    print(f"before {before}, after {after}, {stats}")
    print(f"memory {grown >> 10:+d} kB for {dead} states of the dead: {grown / max(1, dead) / 1024:.1f} kB each")
    ok = (
        not failures
        and after == before
        and flat
        and stats["malloc_deaths"] == 0
        and stats["retired_hosts"] == stats["abandoned_states"]
    )
    print("nothing else is left" if ok else "NOT WELL", flush=True)
    return ok


if __name__ == "__main__":
    numbers = [int(number) for number in sys.argv[1:]]
    sys.exit(not main(numbers[0], numbers[1], numbers[2] if numbers[2:] else random.randrange(10**6)))

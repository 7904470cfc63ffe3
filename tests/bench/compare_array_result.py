"""What a numpy array costs on its way back from a task, against C. A command, not a test.

    python tests/bench/compare_array_result.py [--megabytes 100] [--rounds 15] [--cc cc]

compiles csrc/testing/memfd_result.c (fork, write to a memfd, wait, mmap), then takes it, a copied task and a shared
task in turn, pinned to one CPU. Each has the array before its start. Printed are the medians; the exit status is 1
when the copied task costs more than 1.4 times what C does, or the shared one more than 1 ms.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from taskclone import PROCESS, SHARED, CloneFlags, clone
from taskclone.bench.host import pick_cpu

SOURCE = Path(__file__).parents[2] / "csrc" / "testing" / "memfd_result.c"
A_ROUND = 3


def one_result(array: Any, flags: CloneFlags) -> tuple[float, float]:
    """Seconds from the start until the array is there, and for a first look at every page of it."""
    began = time.perf_counter()
    back = clone(lambda: array, flags=flags).result(60)
    there = time.perf_counter()
    assert int(back[:: 4096 // back.itemsize].sum()) == len(back) // (4096 // back.itemsize)
    return there - began, time.perf_counter() - there


def bytes_result(data: bytes) -> float:
    began = time.perf_counter()
    assert len(clone(lambda: data).result(60)) == len(data)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare an array's way back from a task with C.")
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cc", default="cc")
    arguments = parser.parse_args()

    cpu = pick_cpu()
    os.sched_setaffinity(0, {cpu})
    taken: dict[str, list[float]] = {"C": [], "copied": [], "look": [], "shared": [], "bytes": []}
    array = np.ones(arguments.megabytes << 17)
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "memfd_result")
        subprocess.run([arguments.cc, "-O2", "-o", program, str(SOURCE)], check=True)
        command = [program, "--cpu", str(cpu), str(arguments.megabytes), str(A_ROUND)]
        for _ in range(arguments.rounds):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            taken["C"] += [float(line) / 1e9 for line in done.stdout.split()]
            for _ in range(A_ROUND):
                there, look = one_result(array, PROCESS)
                taken["copied"].append(there)
                taken["look"].append(look)
                taken["shared"].append(one_result(array, SHARED)[0])
    del array  # else the copies below would be of a larger heap
    data = b"x" * (arguments.megabytes << 20)
    taken["bytes"] = [bytes_result(data) for _ in range(arguments.rounds)]
    ms = {name: statistics.median(values) * 1e3 for name, values in taken.items()}
    ratio = ms["copied"] / ms["C"]
    print(f"an array of {arguments.megabytes} MB, medians of {len(taken['C'])}, CPU {cpu}:")
    print(f"  C: fork + write(memfd) + mmap        {ms['C']:8.2f} ms")
    print(f"  copied task                          {ms['copied']:8.2f} ms   {ratio:.2f}x (1.40x allowed)")
    print(f"    and its first look at each page    {ms['look']:8.2f} ms")
    print(f"  shared task                          {ms['shared']:8.2f} ms   (1 ms allowed)")
    print(f"  bytes of that size, copied task      {ms['bytes']:8.2f} ms   {ms['bytes'] / ms['C']:.2f}x")
    return 0 if ratio <= 1.4 and ms["shared"] <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())

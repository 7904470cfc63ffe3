"""Runs the tests of tests/kernels on other kernels, in machines that qemu emulates: ``make test-kernels``.

    python tests/kernels/emulate [KERNEL ...] [--file TEST_FILE ...]

A KERNEL is a version (6.1: Debian's newest cloud kernel of that name), or a kernel's file. A line for each kernel and
test file; exit status 1 when anything failed. What the tests print, and the consoles, are kept below build/kernels.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import guest
from debian import MIRROR, Kernels
from lacks import Lacking, need
from machine import NEEDED, Machine

KERNELS = ["5.10", "6.1", "6.12", "7.0", "7.3"]
FOLDER = guest.ROOT / "build" / "kernels"
SLOWNESS = 12.0
"""Seconds in an emulated machine for one outside, as long as it computes."""
DEMO = "taskclone demo crash"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/kernels/emulate", description="Run tests/kernels on other kernels, in emulated machines."
    )
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"version or file; default: {' '.join(KERNELS)}")
    parser.add_argument("--list", action="store_true", help="print the kernels that can be had")
    parser.add_argument("--file", action="append", default=[], help="a test file to run, instead of tests/kernels")
    parser.add_argument("--pytest", action="append", default=[], metavar="OPTION", help="for pytest: --pytest=-v")
    parser.add_argument("--jobs", type=int, default=2, help="machines side by side (2)")
    parser.add_argument("--cpus", type=int, default=1, help="processors of a machine (1)")
    parser.add_argument("--accel", choices=["tcg", "kvm"], default="tcg", help="how qemu runs code (tcg)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a machine has (600)")
    parser.add_argument("--slowness", type=float, default=SLOWNESS, help=f"factor on the tests' limits ({SLOWNESS:g})")
    parser.add_argument("--mirror", default=MIRROR, help="Debian mirror")
    parser.add_argument("--build", type=Path, help="meson's folder of the testing build (TASKCLONE_BUILD)")
    return parser.parse_args()


def runs(files: list[str], options: list[str]) -> dict[str, list[str]]:
    """What a machine does, by the name in the report."""
    found = {}
    for file in files or sorted(
        str(path.relative_to(guest.ROOT)) for path in Path(__file__).parents[1].glob("test_*.py")
    ):
        found[file] = ["pytest", "-q", "-p", "no:cacheprovider", *options, file]
    if not files:
        found[DEMO] = [guest.interpreter(), "-c", "from taskclone.cli import main; main()", *DEMO.split()[1:]]
    return found


class Report:
    """Prints a line for each kernel and test file, and the output of those that failed; one kernel writes at a time."""

    def __init__(self, kernels: list[str], names: list[str]) -> None:
        self._widths = max(map(len, kernels)), max(map(len, names))
        self._lock = threading.Lock()
        self.failed = False

    def line(self, kernel: str, name: str, words: str, seconds: float, output: str = "") -> None:
        kernel_width, name_width = self._widths
        with self._lock:
            print(f"{kernel:{kernel_width}}  {name:{name_width}}  {seconds:6.1f} s  {words}")
            if output:
                self.failed = True
                print("    " + output.rstrip().replace("\n", "\n    "))
            sys.stdout.flush()


def run_on(kernel: str, image: Path, machine: Machine, names: list[str], report: Report) -> None:
    """Everything on one kernel."""
    began = time.monotonic()
    label = Path(kernel).name
    console, log = FOLDER / f"{label}.console", FOLDER / f"{label}.log"
    left, running, release, off = list(names), "", "no kernel", False
    with log.open("w") as file:
        for told in machine.run(image, console):
            if "boot" in told:
                release = told["boot"]
            elif "begin" in told:
                running = told["begin"]
            elif "end" in told:
                left.remove(told["end"])
                running = ""
                output, status = told["output"], told["status"]
                file.write(f"==== {told['end']}: exit status {status}\n{output}\n")
                last = (output.strip().splitlines() or [""])[-1]
                report.line(label, told["end"], last.strip("= "), told["seconds"], output if status else "")
            else:
                off = True
    seconds = time.monotonic() - began
    if left or not off:
        last = console.read_text(errors="replace")[-3000:]
        what = f"went down in {running}" if running else "went down"
        report.line(
            label, f"({release})", f"{what}; not run: {', '.join(left)}", seconds, f"The console's end:\n{last}"
        )
    else:
        report.line(label, f"({release})", "whole", seconds)


def main() -> int:
    wanted = arguments()
    FOLDER.mkdir(parents=True, exist_ok=True)
    source = Kernels(FOLDER, wanted.mirror)
    try:
        if wanted.list:
            print("\n".join(source.versions()))
            return 0
        if platform.machine() != "x86_64":
            raise Lacking("the emulated machines are x86-64, and run the binaries of this one")
        build = wanted.build or os.environ.get("TASKCLONE_BUILD")
        if not build:
            raise Lacking("TASKCLONE_BUILD is unset: it names the build folder with the C programs; make sets it")
        need(NEEDED)
        kernels = wanted.kernels or KERNELS
        images = [Path(kernel) if "/" in kernel else source.image(kernel) for kernel in kernels]
        todo = runs(wanted.file, wanted.pytest)
        machine = Machine(
            FOLDER / "initramfs", processors=wanted.cpus, accelerator=wanted.accel, timeout=wanted.timeout
        )
        with machine.initramfs.open("wb") as file:
            guest.write(file, Path(build), todo, wanted.slowness, wanted.timeout)
    except Lacking as error:
        print(f"test-kernels: {error}", file=sys.stderr)
        return 2
    report = Report([Path(kernel).name for kernel in kernels], list(todo))
    with ThreadPoolExecutor(wanted.jobs) as pool:
        done = [
            pool.submit(run_on, kernel, image, machine, list(todo), report)
            for kernel, image in zip(kernels, images, strict=True)
        ]
        for each in done:
            each.result()
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())

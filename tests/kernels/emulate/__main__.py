"""Runs the tests of tests/kernels on other kernels, in machines that qemu emulates: ``make test-kernels``.

    python tests/kernels/emulate [KERNEL ...] [--file TEST_FILE ...]

A KERNEL is a version (6.1: Debian's newest cloud kernel of that name), or a kernel's file. A line for each kernel and
test file; exit status 1 when anything failed, 2 when something is missing here. What the tests print, the consoles and
the kernels, which are fetched once, are kept in build/kernels.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import guest
from debian import MIRROR, Kernels
from lacks import Lacking, need
from machine import NEEDED, Machine
from runs import Report, plan_runs, run_on

KERNELS = ["5.10", "6.1", "6.12", "7.0", "7.3"]
FOLDER = guest.ROOT / "build" / "kernels"
SLOWNESS = 12.0
"""Seconds that an emulated machine computes at what takes one here."""


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


def main() -> int:
    wanted = arguments()
    FOLDER.mkdir(parents=True, exist_ok=True)
    source = Kernels(FOLDER, wanted.mirror)
    names = wanted.kernels or KERNELS
    todo = plan_runs(wanted.file, wanted.pytest)
    try:
        if wanted.list:
            print("\n".join(source.versions()))
            return 0
        build = testing_build(wanted.build)
        need(NEEDED)
        images = [Path(name) if "/" in name else source.image(name) for name in names]
        machine = Machine(FOLDER / "initramfs", wanted.cpus, accelerator=wanted.accel, timeout=wanted.timeout)
        with machine.initramfs.open("wb") as file:
            guest.write(file, build, todo, wanted.slowness, wanted.timeout)
    except Lacking as error:
        print(f"test-kernels: {error}", file=sys.stderr)
        return 2
    labels = [Path(name).name for name in names]
    report = Report(labels, todo)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with ThreadPoolExecutor(wanted.jobs) as pool:
        machines = [
            pool.submit(run_on, label, image, machine, todo, report, FOLDER)
            for label, image in zip(labels, images, strict=True)
        ]
        try:
            for each in machines:
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            machine.switch_all_off()
            raise
    print(f"{report.failed} failed; logs in {FOLDER}")
    return 1 if report.failed else 0


def testing_build(given: Path | None) -> Path:
    """The folder with the C programs, for machines that can run them."""
    if platform.machine() != "x86_64":
        raise Lacking("the emulated machines are x86-64 and run the programs of this one, which is not")
    build = given or os.environ.get("TASKCLONE_BUILD")
    if not build:
        raise Lacking("TASKCLONE_BUILD is unset: it names the build folder with the C programs; make sets it")
    return Path(build)


if __name__ == "__main__":
    sys.exit(main())

"""What a machine is to run, and the report: a line for each kernel and test file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from guest import ROOT, interpreter

__all__ = ["Report", "plan_runs", "run_on"]

DEMO = "taskclone demo crash"
TESTS = Path(__file__).parents[1]


def plan_runs(files: list[str], options: list[str]) -> dict[str, list[str]]:
    """argv by name: pytest for each of ``files``, given from the root of the source tree, with these options; without
    any, for all that tests/kernels has, and then the demo that crashes."""
    found = {}
    for file in files or sorted(str(path.relative_to(ROOT)) for path in TESTS.glob("test_*.py")):
        found[file] = ["pytest", "-q", "-p", "no:cacheprovider", *options, file]
    if not files:
        found[DEMO] = [interpreter(), "-c", "from taskclone.cli import main; main()", *DEMO.split()[1:]]
    return found


class Report:
    """Prints lines in columns, and below those of a failure its output; one kernel writes at a time.

    Attributes:
        failed: how many lines were failures.
    """

    def __init__(self, kernels: Iterable[str], names: Iterable[str]) -> None:
        self._widths = max(map(len, kernels)), max(map(len, names))
        self._lock = threading.Lock()
        self.failed = 0

    def line(self, kernel: str, name: str, seconds: float, words: str, failure: str | None = None) -> None:
        kernel_width, name_width = self._widths
        with self._lock:
            print(f"{kernel:{kernel_width}}  {name:{name_width}}  {seconds:6.1f} s  {words}")
            if failure is not None:
                self.failed += 1
                print("    " + failure.rstrip().replace("\n", "\n    "))
            sys.stdout.flush()


class Runner(Protocol):
    """What is used of machine.Machine."""

    def run(self, kernel: Path, console: Path) -> Iterator[dict[str, Any]]: ...


def run_on(label: str, image: Path, machine: Runner, names: Iterable[str], report: Report, folder: Path) -> None:
    """Boots a kernel and reports its runs. Their output is in LABEL.log then, its messages in LABEL.console."""
    began = time.monotonic()
    console, log = folder / f"{label}.console", folder / f"{label}.log"
    left, running, release, is_off = list(names), "", "no kernel", False
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
                last = (output.strip().splitlines() or [""])[-1].strip("= ")
                report.line(label, told["end"], told["seconds"], last, None if status == 0 else output)
            else:
                is_off = True
    seconds = time.monotonic() - began
    if is_off and not left:
        report.line(label, f"({release})", seconds, "the whole machine")
        return
    what = f"went down in {running}" if running else "went down"
    last = console.read_text(errors="replace")[-3000:] if console.exists() else ""
    report.line(
        label, f"({release})", seconds, f"{what}; not finished: {', '.join(left)}", f"The end of {console}:\n{last}"
    )

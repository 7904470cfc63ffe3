"""Is the benchmark's fork/thread ratio the one that an independent C program finds? A command, not a test.

    python tests/bench/compare_launch_loop.py [--heap 0,2] [--count 2000] [--rounds 7] [--cc cc]

compiles csrc/testing/launch_loop.c, then runs it and the benchmark's C series in turn, pinned to the same CPU, and
prints both ratios (medians over the rounds) and how far they are apart. The exit status is 1 when that is more than
15 % at any heap.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from taskclone.bench.cases import find
from taskclone.bench.host import pick_cpu
from taskclone.bench.run import Options, run
from taskclone.bench.series import Case
from taskclone.bench.verdict import judge

SOURCE = Path(__file__).parents[2] / "csrc" / "testing" / "launch_loop.c"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the benchmark's C series with launch_loop.c.")
    parser.add_argument("--heap", default="0,2")
    parser.add_argument("--count", type=int, default=2000, help="launches a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cc", default="cc")
    arguments = parser.parse_args()

    launch = find("launch")
    case = Case("launch", (launch.find("c_fork"), launch.find("c_pthread")))
    heaps = tuple(sorted({int(heap) for heap in arguments.heap.split(",")}))
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "launch_loop")
        subprocess.run([arguments.cc, "-O2", "-pthread", "-o", program, str(SOURCE)], check=True)
        count = arguments.count * arguments.rounds
        options = Options(heaps, count, 60.0 * arguments.rounds, arguments.rounds, pick_cpu(), program)
        results = run(case, options, {}, lambda number, what: None).results
    bar = judge(results).bars[0]
    print(f"fork/thread, the benchmark's and launch_loop's: {bar.detail}")
    print(f"apart by {bar.measured:.1f} % at the worst heap; {bar.limit:.0f} % are allowed: {bar.state}")
    return 0 if bar.state == "reached" else 1


if __name__ == "__main__":
    sys.exit(main())

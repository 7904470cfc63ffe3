"""The emulator without a machine: which kernel it takes, what it runs, what it reports of a machine's words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debian import packages_by_version
from lacks import Lacking, need
from runs import DEMO, Report, plan_runs, run_on


def test_kernels_are_ordered_by_number_and_taken_from_the_package_that_has_them() -> None:
    names = [
        "linux-image-6.12.9+deb13-cloud-amd64",
        "linux-image-6.12.10+deb13-cloud-amd64",
        "linux-image-6.12.10+deb13-cloud-amd64-dbg",
        "linux-image-6.12.10+deb13-cloud-amd64-unsigned",
        "linux-image-6.12.10+deb13-amd64",
        "linux-image-6.12-cloud-amd64",
        "linux-image-7.0.13+deb13-cloud-amd64",
        "linux-binary-7.0.13+deb13-cloud-amd64",
        "linux-image-5.10.0-46-cloud-amd64",
        "linux-headers-5.10.0-46-cloud-amd64",
    ]
    expected = {
        "5.10.0-46": "linux-image-5.10.0-46-cloud-amd64",
        "6.12.9+deb13": "linux-image-6.12.9+deb13-cloud-amd64",
        "6.12.10+deb13": "linux-image-6.12.10+deb13-cloud-amd64",
        "7.0.13+deb13": "linux-binary-7.0.13+deb13-cloud-amd64",
    }
    for given in (names, names[::-1]):
        assert list(packages_by_version(given).items()) == list(expected.items())


def test_what_is_missing_is_named_with_its_package() -> None:
    need({"sh": "dash"})
    with pytest.raises(Lacking, match=r"apt install --no-install-recommends a b$"):
        need({"sh": "dash", "no-such-program": "b", "nor-this": "a", "no-such-program-2": "b"})


def test_all_kernel_tests_are_run_and_the_demo() -> None:
    runs = plan_runs([], ["-x"])
    assert "tests/kernels/test_crash.py" in runs
    assert not any("emulate" in name for name in runs)
    assert list(runs)[-1] == DEMO
    assert runs["tests/kernels/test_wait.py"] == [
        "pytest", "-q", "-p", "no:cacheprovider", "-x", "tests/kernels/test_wait.py",
    ]  # fmt: skip
    assert list(plan_runs(["tests/test_flags.py"], [])) == ["tests/test_flags.py"]


class Words:
    """A machine that says this and no more."""

    def __init__(self, *words: dict[str, Any]) -> None:
        self.words = words

    def run(self, kernel: Path, console: Path) -> Iterator[dict[str, Any]]:
        console.write_text("Kernel panic\n")
        return iter(self.words)


BOOT = {"boot": "6.1.0-test"}
GOOD = {"end": "good", "status": 0, "seconds": 1.0, "output": "..\n== 2 passed in 1.0s ==\n"}
BAD = {"end": "bad", "status": 1, "seconds": 2.0, "output": "F\nbecause\n1 failed in 2.0s\n"}
HUNG = {"end": "bad", "status": None, "seconds": 60.0, "output": ".\nended after 60 s\n"}


def report_of(folder: Path, *words: dict[str, Any]) -> int:
    report = Report(["6.1"], ["good", "bad"])
    run_on("6.1", Path("vmlinuz"), Words(*words), ["good", "bad"], report, folder)
    return report.failed


def test_a_machine_in_which_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = {**BAD, "status": 0}
    assert report_of(tmp_path, BOOT, {"begin": "good"}, GOOD, {"begin": "bad"}, fine, {"off": True}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["6.1", "good", "1.0", "s", "2", "passed", "in", "1.0s"]
    assert lines[-1].startswith("6.1  (6.1.0-test)")
    assert len(lines) == 3
    assert "because" in (tmp_path / "6.1.log").read_text()


@pytest.mark.parametrize("failure", [BAD, HUNG])
def test_the_output_of_a_failure_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], failure: dict[str, Any]
) -> None:
    assert report_of(tmp_path, BOOT, {"begin": "good"}, GOOD, {"begin": "bad"}, failure, {"off": True}) == 1
    assert "    " + failure["output"].splitlines()[1] in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ([], "went down; not finished: good, bad"),
        ([BOOT, {"begin": "good"}], "went down in good; not finished: good, bad"),
        ([BOOT, {"begin": "good"}, GOOD], "went down; not finished: bad"),
        ([BOOT, {"begin": "good"}, GOOD, {"begin": "bad"}, {**BAD, "status": 0}], "went down; not finished: "),
    ],
)
def test_a_machine_that_goes_down_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[dict[str, Any]], seen: str
) -> None:
    assert report_of(tmp_path, *words) == 1
    out = capsys.readouterr().out
    assert seen in out
    assert "    Kernel panic" in out


def test_the_first_process_does_nothing_on_a_real_machine() -> None:
    """It ends every process that it may."""
    init = Path(__file__).parent / "init.py"
    done = subprocess.run([sys.executable, init], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "emulated machine" in done.stderr

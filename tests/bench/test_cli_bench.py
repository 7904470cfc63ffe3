from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskclone.bench import run as conductor
from taskclone.bench import store
from taskclone.bench.cases import find
from taskclone.bench.results import ALONE, TOGETHER
from taskclone.bench.series import Case, Series, python_loop
from taskclone.cli.bench import bench, duration


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One small run through the installed command, all files written."""
    folder = tmp_path_factory.mktemp("bench") / "new"
    command = [str(Path(sys.executable).with_name("taskclone")), "bench", "launch", "--heap", "2,0,2", "--count", "6"]
    command += ["--huge-pages"]
    files = [f"--{kind}={folder / 'out'}.{kind}" for kind in ("json", "png", "svg")]
    return folder, subprocess.run([*command, *files], capture_output=True, text=True, timeout=300)


def test_the_command_ends_well(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = ran
    assert done.returncode == 0, done.stderr
    assert "2 heaps up to 2 MB, 6 values or 20 s a point" in done.stderr.splitlines()[0]
    assert "at most" in done.stderr.splitlines()[0]


def test_all_series_are_there_with_counts_and_memory(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    results = store.load(ran[0] / "out.json")
    case = find("launch")
    assert results.series_keys(ALONE) == [series.key for series in case.series]
    assert results.series_keys(TOGETHER) == [key for group in case.together for key in group]
    assert results.sizes == [0, 2]
    for point in results.points:
        assert point.count == 6, point
        assert point.vmpte_kb > 0
        assert point.huge_kb <= 0 or point.group == "huge"
        first, last = point.summary(point.times[0]), point.summary(point.times[-1])
        assert 0 < first.p10 <= first.median
        assert last.p99 > 0
    assert {point.group for point in results.points} == {ALONE, TOGETHER, *(part.name for part in case.parts)}
    for series in case.series:
        small, large = results.curve(series.key)
        assert 1900 < large.vmrss_kb - small.vmrss_kb < 2500, series.key
    assert set(results.memcpy) == {64 << 10, 2 << 20}


def test_host_facts_are_in_the_json(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    metadata = json.loads((ran[0] / "out.json").read_text())["metadata"]
    for fact in ("kernel", "cpu_model_name", "thp", "mitigations", "python_version", "libc", "pinned_cpu"):
        assert metadata[f"host_{fact}"]


def test_the_c_series_ran_without_an_interpreter(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    point = store.load(ran[0] / "out.json").point("c_fork", 0)
    assert point is not None
    assert point.vmrss_kb < 4096


def test_tables_keep_their_columns_in_a_pipe(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = ran
    first_tables = done.stdout.partition("Part ")[0]
    rows = [line for line in first_tables.splitlines() if line.startswith("│ fork (C)")]
    assert len(rows) == 3  # two heaps, and once together
    assert rows[0].count("│") == 13
    assert "…" not in done.stdout


def test_verdict_and_bars_are_printed(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = ran
    assert "starting a process takes" in done.stdout
    assert "copied" in done.stdout
    bars = done.stdout.partition("What it must reach:")[2].strip().splitlines()
    states = [line.strip().split("  ")[0] for line in bars]
    assert len(bars) == 14
    assert set(states) <= {"reached", "missed", "not measured"}


def test_what_the_cost_follows_is_printed(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = ran
    for words in (
        "What fork (C) follows (medians of 6 processes, 97% intervals)",
        "What pthread_create (C) follows",
        "With the heap in huge pages",
        "to the first instruction of the body",
        "The bill after a fork",
    ):
        assert words in done.stdout
    costs = done.stdout.partition("What a start costs for each")[2]
    for unit in ("touched page", "huge pages", "mapping", "open descriptor", "written again"):
        assert f"│ {unit}" in costs or f" {unit} " in costs, unit


def test_the_chart_is_written(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert "pthread_create (C)" in (ran[0] / "out.svg").read_text()
    assert (ran[0] / "out.png").stat().st_size > 20_000


def test_show_says_the_same_from_the_file(ran: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    folder, done = ran
    shown = CliRunner().invoke(bench, ["show", str(folder / "out.json"), "--svg", str(tmp_path / "again.svg")])
    assert shown.exit_code == 0
    assert shown.stdout == done.stdout
    assert (tmp_path / "again.svg").read_text() == (folder / "out.svg").read_text()


def test_switch_is_measured_and_shown(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("taskclone")), "bench", "switch", "--count", "6"]
    files = [f"--{kind}={tmp_path / 'out'}.{kind}" for kind in ("json", "png", "svg")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = store.load(tmp_path / "out.json")
    assert results.series_keys(ALONE) == [series.key for series in find("switch").series]
    assert {point.count for point in results.points} == {6}
    assert "A round trip in C on one CPU, by what the two share: pipe thread" in done.stdout
    assert "What it must reach" not in done.stdout
    shown = CliRunner().invoke(bench, ["show", str(tmp_path / "out.json"), "--svg", str(tmp_path / "again.svg")])
    assert (shown.exit_code, shown.stdout) == (0, done.stdout)
    assert (tmp_path / "again.svg").read_text() == (tmp_path / "out.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heap", "two"], "not a list of whole megabytes"),
        (["--heap", ""], "not a list of whole megabytes"),
        (["--heap", "0,,2"], "not a list of whole megabytes"),
        (["--heap", "-1,2"], "a heap of -1 MB cannot be had"),
        (["--heap", "999999999"], "more than half of the"),
        (["--count", "0"], "not in the range"),
        (["--count", "many"], "not a valid integer"),
        (["--loop", "/nowhere/loop"], "does not exist"),
        (["--huge-pages", "--heap", "2"], "a slope needs two heaps"),
        (["--json", "/proc/nowhere/out.json"], "/proc/nowhere/out.json"),
        (["--png", "/"], "is a directory"),
    ],
)
def test_bad_input_is_told_before_the_run(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(bench, ["launch", *arguments])
    assert result.exit_code in (1, 2)
    assert message in result.stderr


def test_a_foreign_file_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "foreign.json").write_text("{}")
    result = CliRunner().invoke(bench, ["show", str(tmp_path / "foreign.json")])
    assert result.exit_code == 1
    assert "was not written by taskclone bench" in result.stderr


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyperf" else real(name))
    result = CliRunner().invoke(bench, ["launch"])
    assert result.exit_code == 2
    assert "bench needs pyperf: pip install 'taskclone[bench]'" in result.stderr


def test_a_series_that_fails_is_named_and_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers look the case up by name: one with a series that they do not know fails there."""
    real = find("launch")
    unknown = Series("unknown", "unknown", "Python", "none", python_loop(int, int), (1.0, 0.0))
    case = Case("launch", (unknown, real.find("c_pthread")))
    options = conductor.Options((0,), 10, 1.0, 1, None)
    outcome = conductor.run(case, options, {}, lambda number, what: None)
    assert outcome.results.series_keys(ALONE) == ["c_pthread"]
    assert [failure.split(":")[0] for failure in outcome.failures] == ["unknown"]
    assert any("not measured: unknown" in note for note in outcome.results.notes)


def test_the_program_is_installed() -> None:
    assert resources.files("taskclone.bench").joinpath("bare_program").is_file()


def test_durations_for_people() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 60, 754)] == ["0 s", "59 s", "1 min 0 s", "12 min 34 s"]

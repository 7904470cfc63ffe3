from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pyperf
import pytest
from made_up_results import MakeResults

from taskclone.bench import store


def test_what_is_saved_is_loaded(make_results: MakeResults, tmp_path: Path) -> None:
    results = dataclasses.replace(make_results(), loop={("fork", 2): (31_000, 32_000), ("thread", 2): (5000, 5100)})
    store.save(results, tmp_path / "out.json")
    assert store.load(tmp_path / "out.json") == results


def test_every_nanosecond_survives(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results()
    values = (*range(1, 3000, 7), 123_456_789, 20_000_000_001)
    run = dataclasses.replace(results.points[0].runs[0], ns={"start": values, "total": values})
    results = dataclasses.replace(results, points=(dataclasses.replace(results.points[0], runs=(run,)),))
    store.save(results, tmp_path / "out.json")
    assert store.load(tmp_path / "out.json").points[0].runs[0].ns["start"] == values


def test_a_saved_file_replaces_another(make_results: MakeResults, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("something else")
    store.save(make_results(), path)
    assert store.load(path).host["kernel"] == "6.1.0-test"


def test_pyperf_reads_it(make_results: MakeResults, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    store.save(make_results(), path)
    benchmark = pyperf.BenchmarkSuite.load(str(path)).get_benchmark("launch/c_fork/alone/2MB/start")
    facts = benchmark.get_metadata()
    assert benchmark.get_nrun() == 2
    assert benchmark.median() == pytest.approx(38e-6)
    assert (facts["size"], facts["vmpte_kb"], facts["language"], facts["route"]) == (2, 44, "C", "c_fork")
    done = subprocess.run(
        [sys.executable, "-m", "pyperf", "show", str(path)], capture_output=True, text=True, check=True
    )
    assert "launch/c_pthread/alone/0MB/total" in done.stdout


def test_it_is_json_with_host_facts(make_results: MakeResults, tmp_path: Path) -> None:
    store.save(make_results(), tmp_path / "out.json")
    metadata = json.loads((tmp_path / "out.json").read_text())["metadata"]
    assert metadata["host_cpu_model_name"] == "Imaginary 9000"
    assert metadata["note_000"] == "a note"
    assert metadata["unit"] == "second"


def test_a_foreign_pyperf_file_is_refused(tmp_path: Path) -> None:
    run = pyperf.Run([1.0], metadata={"name": "foreign"}, collect_metadata=False)
    pyperf.Benchmark([run]).dump(str(tmp_path / "foreign.json"))
    with pytest.raises(ValueError, match="not written by taskclone bench: foreign"):
        store.load(tmp_path / "foreign.json")

"""The facts about the machine that belong beside every figure. No name of the machine, no path, no address of it."""

from __future__ import annotations

import contextlib
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from taskclone.bench.results import Fact

__all__ = ["available_mb", "host_facts", "pick_cpu"]

VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")
THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CLOCK = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def host_facts(cpu: int | None) -> dict[str, Fact]:
    """By name; ``cpu`` is the one that the measuring processes are pinned to. Values are never empty."""
    model, flags = _cpuinfo()
    facts: dict[str, Fact] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu_model_name": model or "unknown",
        "cpu_count": os.cpu_count() or 0,
        "cpu_cores": psutil.cpu_count(logical=False) or 0,
        "virtual_machine": "yes" if "hypervisor" in flags else "not seen",
        "pinned_cpu": "none" if cpu is None else str(cpu),
        "memory_mb": psutil.virtual_memory().total >> 20,
        "page_size": os.sysconf("SC_PAGESIZE"),
        "thp": _chosen(_read(THP)) or "unknown",
        "thp_in_benchmark": "forbidden",
        "clocksource": _read(CLOCK) or "unknown",
        "mitigations": _mitigations() or "unknown",
        "python_version": f"{platform.python_version()} ({platform.python_implementation()})",
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "load_avg_1min": os.getloadavg()[0],
    }
    return facts


def pick_cpu() -> int:
    """The last CPU that this process may use: interrupts prefer the first."""
    return max(os.sched_getaffinity(0))


def available_mb() -> int:
    """Memory that can be had without swapping."""
    return int(psutil.virtual_memory().available) >> 20


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""


def _chosen(text: str) -> str:
    """``always [madvise] never`` -> ``madvise``."""
    return text.partition("[")[2].partition("]")[0]


def _cpuinfo() -> tuple[str, set[str]]:
    """Model name ("" where the file has none, as on aarch64) and the set of CPU flags."""
    model, flags = "", set[str]()
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "model name":
            model = model or value
        elif name in ("flags", "Features"):
            flags |= set(value.split())
    return model, flags


def _mitigations() -> str:
    """Only what concerns this CPU: ``spectre_v2: Mitigation: ...; ...``."""
    if not VULNERABILITIES.is_dir():
        return ""
    known = {path.name: _read(path) for path in sorted(VULNERABILITIES.iterdir())}
    concerned = [f"{name}: {text}" for name, text in known.items() if text and not text.startswith("Not affected")]
    return " | ".join(concerned) or "none needed"

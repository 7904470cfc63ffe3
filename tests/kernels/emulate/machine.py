"""One emulated machine: boots a kernel with an initramfs and passes on what init.py tells."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["NEEDED", "Machine"]

QEMU = "qemu-system-x86_64"
NEEDED = {QEMU: "qemu-system-x86"}


@dataclass(frozen=True)
class Machine:
    """What is the same for every kernel.

    Attributes:
        initramfs: the file that guest.write() made.
        processors: how many it has.
        memory: in MB.
        accelerator: tcg, or kvm where that works.
        timeout: seconds until it is switched off, whatever it does.
    """

    initramfs: Path
    processors: int = 1
    memory: int = 1024
    accelerator: str = "tcg"
    timeout: float = 600
    _running: set[subprocess.Popen[str]] = field(default_factory=set, init=False)

    def switch_all_off(self) -> None:
        """Ends every run that goes on, from any thread."""
        for qemu in list(self._running):
            qemu.kill()

    def command(self, kernel: Path, console: Path) -> list[str]:
        processor = "max" if self.accelerator == "tcg" else "host"
        words = "console=ttyS0 quiet panic=-1 oops=panic"  # a panic restarts at once, which -no-reboot makes the end
        return [
            *(QEMU, "-accel", self.accelerator, "-cpu", processor, "-smp", str(self.processors)),
            *("-m", str(self.memory), "-nodefaults", "-display", "none", "-no-reboot"),
            *("-serial", f"file:{console}", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(self.initramfs), "-append", words),
        ]

    def run(self, kernel: Path, console: Path) -> Iterator[dict[str, Any]]:
        """Yields the lines of init.py. What the kernel says on its console, and qemu, is in that file afterwards."""
        command = self.command(kernel, console)
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as qemu:
            assert qemu.stdout is not None
            assert qemu.stderr is not None
            watchdog = threading.Timer(self.timeout, qemu.kill)
            watchdog.start()
            self._running.add(qemu)
            try:
                for line in qemu.stdout:
                    if line.endswith("\n"):  # else its last word, in which it was switched off
                        yield json.loads(line)
            finally:
                self._running.discard(qemu)
                watchdog.cancel()
                qemu.kill()
                complaint = qemu.stderr.read()
        if complaint:
            with console.open("a") as file:
                file.write(complaint)

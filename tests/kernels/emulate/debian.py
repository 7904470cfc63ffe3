"""Kernels out of Debian's archive: apt finds, fetches and verifies them, with a state of its own.

The cloud kernels, which have everything built in that a machine without disk and network needs, of those suites whose
indexes are small: security and backports. Nothing is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lacks import Lacking, need

__all__ = ["Kernels"]

MIRROR = "http://deb.debian.org/debian"
SUITES = {
    "bullseye-security": "-security",
    "bookworm-security": "-security",
    "trixie-security": "-security",
    "bookworm-backports": "",
    "trixie-backports": "",
}
"""Suites, and what follows the mirror's address for them."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"
PACKAGE = re.compile(rf"linux-(image|binary)-(\d+\.\d+\.\d+\S*)-cloud-{ARCHITECTURE}")
"""From 6.19 on the kernel itself is in linux-binary-*, and linux-image-* only names it."""


class Kernels:
    """The kernels that can be had, and those that were: they stay in ``folder``.

    Args:
        folder: for apt's state and the kernels.
        mirror: the address of a Debian mirror.
    """

    def __init__(self, folder: Path, mirror: str = MIRROR) -> None:
        self._folder = folder.absolute()
        self._state = self._folder / "apt"
        self._mirror = mirror.rstrip("/")
        self._updated = False

    def image(self, version: str) -> Path:
        """The newest kernel whose version begins so (6.1, 7.0.13): the file to boot."""
        image = self._folder / f"vmlinuz-{version}"
        if not image.exists():
            self._fetch(version, image)
        return image

    def versions(self) -> list[str]:
        """All that can be had now, the oldest first."""
        self._update()
        return list(packages_by_version(self._names()))

    def _names(self) -> list[str]:
        return self._apt("apt-cache", "pkgnames", "linux-").split()

    def _fetch(self, version: str, image: Path) -> None:
        self._update()
        begins = re.compile(re.escape(version) + r"(?!\d)")
        packages = [name for found, name in packages_by_version(self._names()).items() if begins.match(found)]
        if not packages:
            raise Lacking(
                f"no kernel {version} in {', '.join(SUITES)} of {self._mirror}. --list prints those that are; a kernel "
                "of your own can be given as a file"
            )
        complaints = []
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            for package in reversed(packages):  # an index may name what is gone
                try:
                    self._apt("apt-get", "-qq", "download", package, folder=folder)
                except Lacking as error:
                    complaints.append(str(error))
                    continue
                (archive,) = Path(folder).glob("*.deb")
                fresh = Path(folder, "vmlinuz")
                fresh.write_bytes(kernel_in(archive))
                fresh.replace(image)
                return
        raise Lacking(f"no kernel {version} could be downloaded:\n" + "\n".join(complaints))

    def _update(self) -> None:
        """Once in a run, and only when there is something to ask: what is here stays good without a network."""
        if self._updated:
            return
        need({"apt-get": "apt", "dpkg-deb": "dpkg"})
        if not KEYRING.exists():
            raise Lacking(f"no {KEYRING}, by which apt verifies Debian's kernels: apt install debian-archive-keyring")
        for folder in ("lists/partial", "cache/archives/partial"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        (self._state / "status").touch()
        lines = [f"deb [signed-by={KEYRING}] {self._mirror}{rest} {suite} main\n" for suite, rest in SUITES.items()]
        (self._state / "sources.list").write_text("".join(lines))
        settings = {
            "Dir::Etc::sourcelist": self._state / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": self._state,
            "Dir::State::status": self._state / "status",
            "Dir::Cache": self._state / "cache",
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Sandbox::User": "",  # the folder may be closed to apt's own user
            "Acquire::Languages": "none",
        }
        text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
        # An empty list first: else these would be added to the system's.
        (self._state / "apt.conf").write_text("#clear APT::Architectures;\n" + text)
        self._apt("apt-get", "-qq", "update")
        self._updated = True

    def _apt(self, *command: str, folder: str | None = None) -> str:
        """What one of apt's programs prints; the system's own settings (a proxy) hold beside the private state."""
        environment = {**os.environ, "APT_CONFIG": str(self._state / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Lacking(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout


def packages_by_version(names: list[str]) -> dict[str, str]:
    """Of package names those of cloud kernels, by the kernel's version, the oldest first."""
    found: dict[str, str] = {}
    for name in names:
        match = PACKAGE.fullmatch(name)
        if match and (match[1] == "binary" or match[2] not in found):
            found[match[2]] = name
    return dict(sorted(found.items(), key=lambda item: list(map(int, re.findall(r"\d+", item[0])))))


def kernel_in(package: Path) -> bytes:
    """The kernel of a Debian package."""
    unpacker = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    with unpacker, tarfile.open(fileobj=unpacker.stdout, mode="r|") as members:
        found = next(_kernels(members), None)
        for _ in members:  # to the end: dpkg-deb would complain of a closed pipe
            pass
    if found is None:
        raise Lacking(f"no kernel in {package.name}")
    return found


def _kernels(members: tarfile.TarFile) -> Iterator[bytes]:
    for member in members:
        if member.isreg() and re.fullmatch(r"\./(boot/vmlinuz-.*|usr/lib/modules/[^/]+/vmlinuz)", member.name):
            file = members.extractfile(member)
            assert file is not None
            yield file.read()

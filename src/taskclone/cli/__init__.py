"""The command ``taskclone``: api, bench, demo, explain. Each is in a file of its own, imported when asked for."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {"api": "api", "bench": "bench", "demo": "demo", "explain": "explain"}


class _Lazy(click.Group):
    """``explain`` should not wait for what only ``bench`` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"taskclone.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="taskclone")
def main() -> None:
    """Start tasks at any point between process and thread, and see what it costs."""

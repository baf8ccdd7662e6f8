"""Command groups that load their commands when they are asked for, and end every error as one line and a hint."""

import os
from importlib import import_module
from typing import Any

import click

from aiki.errors import AikiError

__all__ = ["LazyGroup", "Refusal"]

# What a shell tells of a process that Ctrl-C ended: 128 and the number of SIGINT.
INTERRUPTED = 130


class Refusal(click.ClickException):
    """An error of ours, for a person: what is wrong, and what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: Any = None) -> None:
        """Write it to standard error."""
        click.secho("error: ", fg="red", bold=True, nl=False, err=True, file=file)
        click.echo(self.message, err=True, file=file)
        if self.hint:
            click.secho("  hint: ", fg="cyan", nl=False, err=True, file=file)
            click.echo(self.hint, err=True, file=file)


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when they are used: ``aiki --help`` stays quick.

    *commands* says for each name where it is, as ``module:attribute``, and what it does in one line.
    """

    def __init__(self, *args: Any, lazy: dict[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Tell the names, in the order in which they were written down."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without loading them."""
        rows = [(name, about) for name, (_where, about) in self._lazy.items()]
        rows += [(name, command.get_short_help_str()) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; of one that is not there, say which there are."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message} There are: {', '.join(self.list_commands(ctx))}.", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what goes wrong in it ends as one line, or as a traceback with ``AIKI_DEBUG=1``."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough. Nothing more may be written to it, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise click.exceptions.Exit(1) from None
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except AikiError as error:
            if _debugging():
                raise
            raise Refusal(error.message, hint=error.hint) from error
        except Exception as error:
            if _debugging():
                raise
            name = type(error).__name__
            raise Refusal(f"unexpected {name}: {error}", hint="AIKI_DEBUG=1 shows where it comes from") from error


def _debugging() -> bool:
    return os.environ.get("AIKI_DEBUG", "") not in ("", "0")

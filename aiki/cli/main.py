"""The `aiki` command."""

import click

from aiki.cli.groups import LazyGroup

__all__ = ["aiki", "main"]

_RUNS = {
    "list": ("aiki.cli.commands.runs:list_runs", "List runs, newest first."),
    "show": ("aiki.cli.commands.runs:show", "Draw the timeline of a run."),
    "watch": ("aiki.cli.commands.runs:watch", "Follow a run until it is over."),
    "cancel": ("aiki.cli.commands.controls:cancel", "Stop runs; what is recorded stays."),
    "retry": ("aiki.cli.commands.controls:retry", "Let failed runs try again from where they ended."),
    "wake": ("aiki.cli.commands.controls:wake", "Let suspended runs go on now."),
    "pause": ("aiki.cli.commands.controls:pause", "Let runs start nothing new."),
    "resume": ("aiki.cli.commands.controls:resume", "Let paused runs go on."),
}

_DEAD_LETTERS = {
    "list": ("aiki.cli.commands.dead_letters:list_letters", "List dead letters, newest first."),
    "show": ("aiki.cli.commands.dead_letters:show", "Show a dead letter with its message."),
    "redrive": ("aiki.cli.commands.dead_letters:redrive", "Send dead letters on their way again."),
    "discard": ("aiki.cli.commands.dead_letters:discard", "Mark dead letters as done with."),
}

_TOPOLOGY = {
    "apply": ("aiki.cli.commands.topology:apply", "Declare what is missing in the broker."),
    "check": ("aiki.cli.commands.topology:check", "Compare the broker with what should be there."),
    "export": ("aiki.cli.commands.topology:export", "Write the definitions file for RabbitMQ."),
}

_COMMANDS = {
    "dev": ("aiki.cli.commands.dev:dev", "Run everything in one process, without servers."),
    "orchestrator": ("aiki.cli.commands.services:orchestrator", "Run an orchestrator."),
    "worker": ("aiki.cli.commands.services:worker", "Run a worker."),
    "enqueue": ("aiki.cli.commands.enqueue:enqueue", "Start a run of a workflow."),
    "runs": ("aiki.cli.main:runs", "List runs, look into them, move them."),
    "signal": ("aiki.cli.commands.controls:signal", "Send a signal to a run."),
    "dead-letters": ("aiki.cli.main:dead_letters", "Look into what could not be delivered or survived."),
    "topology": ("aiki.cli.main:topology", "Set up RabbitMQ, and check it."),
    "doctor": ("aiki.cli.commands.doctor:doctor", "Check that everything is there and fits together."),
    "bench": ("aiki.cli.commands.bench:bench", "Measure how fast it is, on your own servers."),
    "rebuild": (
        "aiki.cli.commands.services:rebuild",
        "Send again what the store says is due, after a loss of the broker.",
    ),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aiki", message="aiki %(version)s")
def aiki() -> None:
    """Durable workflows in plain async Python, on RabbitMQ and MongoDB.

    Settings come from AIKI_* variables and [tool.aiki] in pyproject.toml.
    """


@click.group(cls=LazyGroup, lazy=_RUNS)
def runs() -> None:
    """List runs, look into them, move them."""


@click.group("dead-letters", cls=LazyGroup, lazy=_DEAD_LETTERS)
def dead_letters() -> None:
    """Look into what could not be delivered or survived."""


@click.group(cls=LazyGroup, lazy=_TOPOLOGY)
def topology() -> None:
    """Set up RabbitMQ, and check it."""


def main() -> None:
    """Run the command line of this process."""
    aiki(prog_name="aiki")


if __name__ == "__main__":
    main()

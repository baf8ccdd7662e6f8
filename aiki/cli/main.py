"""The `aiki` command."""

import click

from aiki.cli.groups import LazyGroup

__all__ = ["aiki", "main"]

_RUNS = {
    "list": ("aiki.cli.runs:list_runs", "List runs, newest first."),
    "show": ("aiki.cli.runs:show", "Draw the timeline of a run."),
    "watch": ("aiki.cli.runs:watch", "Follow a run until it is over."),
    "cancel": ("aiki.cli.controls:cancel", "Stop runs; what is recorded stays."),
    "retry": ("aiki.cli.controls:retry", "Let failed runs try again from where they ended."),
    "wake": ("aiki.cli.controls:wake", "Let suspended runs go on now."),
    "pause": ("aiki.cli.controls:pause", "Let runs start nothing new."),
    "resume": ("aiki.cli.controls:resume", "Let paused runs go on."),
}

_DEAD_LETTERS = {
    "list": ("aiki.cli.dead_letters:list_letters", "List dead letters, newest first."),
    "show": ("aiki.cli.dead_letters:show", "Show a dead letter with its message."),
    "redrive": ("aiki.cli.dead_letters:redrive", "Send dead letters on their way again."),
    "discard": ("aiki.cli.dead_letters:discard", "Mark dead letters as done with."),
}

_TOPOLOGY = {
    "apply": ("aiki.cli.topology:apply", "Declare what is missing in the broker."),
    "check": ("aiki.cli.topology:check", "Compare the broker with what should be there."),
    "export": ("aiki.cli.topology:export", "Write the definitions file for RabbitMQ."),
}

_COMMANDS = {
    "dev": ("aiki.cli.dev:dev", "Run everything in one process, without servers."),
    "orchestrator": ("aiki.cli.services:orchestrator", "Run an orchestrator."),
    "worker": ("aiki.cli.services:worker", "Run a worker."),
    "enqueue": ("aiki.cli.enqueue:enqueue", "Start a run of a workflow."),
    "runs": ("aiki.cli.main:runs", "List runs, look into them, move them."),
    "signal": ("aiki.cli.controls:signal", "Send a signal to a run."),
    "dead-letters": ("aiki.cli.main:dead_letters", "Look into what could not be delivered or survived."),
    "topology": ("aiki.cli.main:topology", "Set up RabbitMQ, and check it."),
    "doctor": ("aiki.cli.doctor:doctor", "Check that everything is there and fits together."),
    "bench": ("aiki.cli.bench:bench", "Measure how fast it is, on your own servers."),
    "rebuild": ("aiki.cli.services:rebuild", "Send again what the store says is due, after a loss of the broker."),
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

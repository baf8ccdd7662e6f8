"""`aiki enqueue`: starting a run from the command line."""

from typing import Any

import click

from aiki.cli.parameters import DURATION, as_json, url_option

__all__ = ["enqueue"]


@click.command()
@click.argument("workflow")
@click.argument("value", metavar="[JSON]", default="{}")
@click.option("--app", "apps", multiple=True, metavar="MODULE", help="Where the workflow is; checks the input.")
@click.option("--version", help="Which version; needed where the app cannot tell.")
@click.option("--wait", is_flag=True, help="Wait for the result. Fails if the run does.")
@click.option("--timeout", type=DURATION, help="How long to wait for it.")
@click.option("--key", help="Idempotency key: the same key stands for the same run.")
@click.option("--use-existing", is_flag=True, help="If the key stands for a run with another input, take that.")
@click.option("--delay", type=DURATION, help="Start later.")
@click.option("--tag", "tags", multiple=True, help="A tag to find it by; repeatable.")
@as_json
@url_option
def enqueue(**given: Any) -> None:
    """Start a run of WORKFLOW with the arguments in JSON, an object by the names of its parameters.

    Where the workflow has one parameter, JSON may be its value alone. With '-' it is read from standard input.
    """
    from aiki.cli import enqueue

    enqueue.enqueue(**given)

"""`aiki doctor`: is everything there, does it fit together, does anything wait in vain?"""

from typing import Any

import click

from aiki.cli.parameters import as_json, url_option

__all__ = ["doctor"]


@click.command()
@as_json
@url_option
def doctor(**given: Any) -> None:
    """Check that everything is there and fits together. Fails if there is a problem."""
    from aiki.cli import doctor

    doctor.examine(**given)

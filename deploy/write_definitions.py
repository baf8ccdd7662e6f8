"""Write the definitions that RabbitMQ loads when it starts, with a password for each role.

    write_definitions.py FILE

The passwords come from AIKI_CLIENT_PASSWORD, AIKI_WORKER_PASSWORD and so on. A role without one
gets none, and cannot log in.
"""

import json
import os
import secrets
import sys
from pathlib import Path

from broker_topology.definitions import definitions, password_hash
from broker_topology.model import Role

__all__ = ["main"]

SALT_BYTES = 4  # What RabbitMQ's hash is made with.


def main(target: Path) -> None:
    """Write *target* anew."""
    hashes = {}
    for role in Role:
        password = os.environ.get(f"AIKI_{role.name}_PASSWORD")
        if password:
            hashes[role] = password_hash(password, secrets.token_bytes(SALT_BYTES))
    partitions = int(os.environ.get("AIKI_PARTITIONS") or 8)
    target.write_text(json.dumps(definitions(partitions, password_hashes=hashes), indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

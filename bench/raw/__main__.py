"""`python -m bench.raw orchestrator|worker`: one process of the limit, with the servers that the environment names."""

import asyncio
import os
import sys

from bench.raw.processes import AMQP_URL, MONGODB_URL, execute, orchestrate


def main() -> None:
    """Run it until it is stopped."""
    (kind,) = sys.argv[1:]
    amqp_url, mongodb_url = os.environ[AMQP_URL], os.environ[MONGODB_URL]
    asyncio.run(orchestrate(amqp_url, mongodb_url) if kind == "orchestrator" else execute(amqp_url))


if __name__ == "__main__":
    main()

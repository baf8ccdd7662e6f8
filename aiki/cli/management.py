"""RabbitMQ's management API, as far as the doctor needs it: the policies that apply to our queues."""

import base64
import json
from datetime import timedelta
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from aiki.config import Settings

__all__ = ["consumer_timeouts"]

_PORT = 15672
_SECONDS = 5.0


def consumer_timeouts(settings: Settings, amqp_url: str) -> dict[str, timedelta]:
    """Tell the consumer timeouts that policies set on queues, by queue. Blocks.

    Raises:
        OSError: the API cannot be reached, or refuses us.
    """
    broker = urlsplit(amqp_url.partition(",")[0])
    base = settings.management_url or f"http://{broker.hostname or 'localhost'}:{_PORT}"
    api = urlsplit(base)
    user, password = api.username or broker.username or "guest", api.password or broker.password or "guest"
    vhost = unquote(broker.path.removeprefix("/")) or "/"

    request = Request(
        f"{api.scheme}://{api.netloc.rpartition('@')[2]}{api.path.rstrip('/')}/api/queues/{quote(vhost, safe='')}",
        headers={
            "Authorization": "Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        },
    )
    with urlopen(request, timeout=_SECONDS) as answer:
        text = answer.read()
    try:
        queues = json.loads(text)
    except ValueError as error:
        raise OSError("it answers with something else than JSON") from error
    return {queue["name"]: span for queue in queues if (span := _timeout_of(queue)) is not None}


def _timeout_of(queue: dict[str, object]) -> timedelta | None:
    policy = queue.get("effective_policy_definition")
    arguments = queue.get("arguments")
    found = None
    if isinstance(policy, dict):
        found = policy.get("consumer-timeout")
    if found is None and isinstance(arguments, dict):
        found = arguments.get("x-consumer-timeout")
    return timedelta(milliseconds=found) if isinstance(found, int) else None

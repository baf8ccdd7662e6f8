"""Permissions: one user per role, with no more than it needs.

RabbitMQ asks for *configure* to declare, for *write* to publish to an exchange
and to bind a queue, for *read* to consume from a queue and to bind to an
exchange. To declare a queue that dead-letters it also asks for read on the
queue and write on the dead-letter exchange. Looking whether something exists
(a passive declaration) and direct reply-to need nothing.

So who may not configure ``aiki.*`` cannot make what is missing there: the
topology has to be applied by an operator (or an orchestrator) first.
"""

import re
from dataclasses import replace

from broker_topology.model import Permission, Policy, Role, TopicPermission
from broker_topology.names import COMMAND_QUEUE_PATTERN, NAME_PATTERN, NOTICES, check_command_queue

__all__ = ["DECLARING", "PERMISSIONS", "TOPIC_PERMISSIONS", "policies", "worker_of"]

DECLARING = frozenset({Role.ORCHESTRATOR, Role.OPERATOR})
"""The roles that may declare the whole topology; a worker may declare the queues of its own commands."""

_NOTHING = "^$"
_OWN_NOTICES = r"aiki\.notices\..+"
_OWN_CONTROL = r"aiki\.control\..+"
_ALL_OF_AIKI = rf"^(aiki\..+|{COMMAND_QUEUE_PATTERN})$"

PERMISSIONS = (
    Permission(
        Role.CLIENT,
        configure=rf"^{_OWN_NOTICES}$",
        write=rf"^(aiki\.(events|queries)|{_OWN_NOTICES})$",
        read=rf"^(aiki\.notices|{_OWN_NOTICES})$",
    ),
    # A worker is a client too: it starts child runs and asks for the rest of a long journal.
    # To make the queue of its commands it has to write to the queue and read from aiki.commands, which
    # lets it bind, and not publish.
    Permission(
        Role.WORKER,
        configure=rf"^({_OWN_NOTICES}|{_OWN_CONTROL}|{COMMAND_QUEUE_PATTERN})$",
        write=rf"^(aiki\.(events|queries|dead)|{_OWN_NOTICES}|{_OWN_CONTROL}|{COMMAND_QUEUE_PATTERN})$",
        read=rf"^(aiki\.(notices|control|commands)|{_OWN_NOTICES}|{_OWN_CONTROL}|{COMMAND_QUEUE_PATTERN})$",
    ),
    # The default exchange carries its answers to whoever asked, and what is redriven from the dead letters.
    Permission(
        Role.ORCHESTRATOR,
        configure=_ALL_OF_AIKI,
        write=rf"^(amq\.default|aiki\..+|{COMMAND_QUEUE_PATTERN})$",
        read=_ALL_OF_AIKI,
    ),
    Permission(
        Role.OPERATOR,
        configure=_ALL_OF_AIKI,
        write=rf"^(amq\.default|aiki\..+|{COMMAND_QUEUE_PATTERN})$",
        read=_ALL_OF_AIKI,
        tags=("policymaker",),
    ),
    Permission(Role.MONITOR, configure=_NOTHING, write=_NOTHING, read=_NOTHING, tags=("monitoring",)),
)


def worker_of(name: str) -> Permission:
    """Narrow the permissions of a worker to the workflow *name* with all its versions, or to the task queue *name*.

    It declares no queues of commands, and binds none: whoever may bind a queue of his own to ``aiki.commands`` can
    have a copy of everybody's orders. So these queues have to be declared ahead.

    Raises:
        QueueNameError: no queue can have this name.
    """
    own = re.escape(check_command_queue(name)) + ("" if "@" in name else f"(@{NAME_PATTERN})?")
    return replace(
        next(permission for permission in PERMISSIONS if permission.role is Role.WORKER),
        configure=rf"^({_OWN_NOTICES}|{_OWN_CONTROL})$",
        write=rf"^(aiki\.(events|queries|dead)|{_OWN_NOTICES}|{_OWN_CONTROL})$",
        read=rf"^(aiki\.(notices|control)|{_OWN_NOTICES}|{_OWN_CONTROL}|{own})$",
    )


# Whoever knows a run's id may hear of it; nobody but an operator hears of all.
_ONE_CLIENT_OR_ONE_RUN = r"^(client\.[^*#]+|\*\.[^.*#]+\.\*)$"

TOPIC_PERMISSIONS = (
    TopicPermission(Role.CLIENT, NOTICES, write=_NOTHING, read=_ONE_CLIENT_OR_ONE_RUN),
    TopicPermission(Role.WORKER, NOTICES, write=_NOTHING, read=_ONE_CLIENT_OR_ONE_RUN),
)

# A command stays unacknowledged while its run executes; half an hour, the default, is no bound for that.
CONSUMER_TIMEOUT_MS = 24 * 60 * 60 * 1000


def policies(version: tuple[int, int] = (3, 10)) -> tuple[Policy, ...]:
    """Tell the policies for a RabbitMQ of *version*.

    From 3.12 on, a policy can say how long a delivery may stay unacknowledged. Before, only
    ``consumer_timeout`` of rabbitmq.conf does, and a broker would refuse the policy.
    """
    if version < (3, 12):
        return ()
    return (Policy("aiki-commands", rf"^{COMMAND_QUEUE_PATTERN}$", {"consumer-timeout": CONSUMER_TIMEOUT_MS}),)

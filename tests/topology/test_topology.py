"""The topology as data: names, arguments, and the file that is made from it."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import broker_topology
from aiki.engine.retry import RETRY_GRID_MS as ENGINE_GRID
from broker_topology import (
    PERMISSIONS,
    RETRY_GRID_MS,
    QueueNameError,
    RetryDelayError,
    Role,
    check_command_queue,
    client_address,
    command_queue,
    control_queue,
    definitions,
    definitions_json,
    notice_queue,
    password_hash,
    policies,
    retry_queue,
    topology,
    watch_key,
)

DEFINITIONS = Path(broker_topology.__file__).parent / "definitions.json"


def test_the_definitions_file_is_what_the_topology_says() -> None:
    assert DEFINITIONS.read_text(encoding="utf-8") == definitions_json(), "run `make topology`"


def test_the_broker_and_the_engine_have_the_same_retry_delays() -> None:
    assert RETRY_GRID_MS == ENGINE_GRID


def test_the_loss_of_a_node_makes_no_queue_unusable_that_everybody_declares() -> None:
    """A classic queue whose node is down cannot be declared either, and then nobody gets connected."""
    assert {queue.kind for queue in topology().queues} == {"quorum"}


def test_every_queue_that_is_kept_is_a_quorum_queue_with_a_delivery_limit() -> None:
    layouts = [topology(), command_queue("a@1"), retry_queue(100)]
    queues = [queue for layout in layouts for queue in layout.queues]

    assert all(queue.kind == "quorum" and queue.durable for queue in queues)
    assert all(isinstance(queue.arguments["x-delivery-limit"], int) for queue in queues)


def test_every_queue_that_dead_letters_does_so_at_least_once() -> None:
    layouts = [topology(), command_queue("a@1"), retry_queue(100)]
    queues = [queue for layout in layouts for queue in layout.queues if "x-dead-letter-exchange" in queue.arguments]

    assert len(queues) == broker_topology.PARTITIONS_DEFAULT + 2
    # Without reject-publish the broker quietly falls back to at-most-once.
    assert all(queue.arguments["x-dead-letter-strategy"] == "at-least-once" for queue in queues)
    assert all(queue.arguments["x-overflow"] == "reject-publish" for queue in queues)


def test_no_queue_expires_with_its_messages() -> None:
    for delay_ms in RETRY_GRID_MS:
        (queue,) = retry_queue(delay_ms).queues
        assert "x-expires" not in queue.arguments
        assert queue.arguments["x-message-ttl"] == delay_ms


@pytest.mark.parametrize("delay_ms", [0, 99, 101, 3_600_001])
def test_a_delay_that_is_not_on_the_grid_has_no_queue(delay_ms: int) -> None:
    with pytest.raises(RetryDelayError):
        retry_queue(delay_ms)


@pytest.mark.parametrize("name", ["user-onboarding@1.0.0", "gpu", "a@b", "A_1.x-y@2", "x" * 100 + "@" + "y" * 100])
def test_names_of_workflow_versions_and_task_queues_are_names_of_queues(name: str) -> None:
    assert check_command_queue(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "@", "a@", "@1", "a@b@c", "a b", "ä", "aiki.events.0", "amq.gen-x", ".a", "x" * 101, "x" * 300, "a\n", "a#"],
)
def test_other_names_are_refused_with_a_reason(name: str) -> None:
    with pytest.raises(QueueNameError) as caught:
        check_command_queue(name)

    assert caught.value.reason


@given(st.text(max_size=300))
def test_no_name_that_is_accepted_is_one_of_ours_or_too_long(name: str) -> None:
    try:
        check_command_queue(name)
    except QueueNameError:
        return
    assert not name.startswith(("aiki.", "amq."))
    assert len(name.encode()) <= 255
    worker = next(one for one in PERMISSIONS if one.role is Role.WORKER)
    assert re.search(worker.configure, name)


@pytest.mark.parametrize("name", ["", "#", "*", "a b", "a#", "x" * 200])
def test_words_that_mean_something_to_an_exchange_are_refused(name: str) -> None:
    for make in (
        client_address,
        watch_key,
        lambda name: control_queue(name, "1"),
        lambda name: notice_queue(name, "1"),
    ):
        with pytest.raises(QueueNameError):
            make(name)


def test_there_is_at_least_one_partition() -> None:
    with pytest.raises(ValueError, match="at least one"):
        topology(0)


def test_a_role_has_one_user_whose_permissions_are_exported() -> None:
    exported = definitions(2)

    assert [user["name"] for user in exported["users"]] == [f"aiki-{role}" for role in Role]
    assert {permission["user"] for permission in exported["permissions"]} == {f"aiki-{role}" for role in Role}


def test_nobody_can_log_in_before_there_is_a_password() -> None:
    assert {user["password_hash"] for user in definitions()["users"]} == {""}
    with_one = definitions(password_hashes={Role.CLIENT: password_hash("secret", b"salt")})
    assert next(user for user in with_one["users"] if user["name"] == "aiki-client")["password_hash"]


def test_a_password_is_hashed_as_rabbitmq_documents_it() -> None:
    # The example of https://www.rabbitmq.com/docs/passwords
    assert password_hash("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_a_policy_that_a_broker_does_not_know_is_not_exported_for_it() -> None:
    assert policies((3, 11)) == ()
    (policy,) = policies((4, 0))
    assert re.search(policy.pattern, "user-onboarding@1.0.0")
    assert not re.search(policy.pattern, "aiki.events.0")


def test_the_definitions_are_plain_json() -> None:
    assert json.loads(definitions_json(3, version=(4, 1)))["policies"]

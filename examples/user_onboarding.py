"""Onboard a user: make a profile, send a welcome e-mail, show the first steps.

    python -m examples.user_onboarding              everything in this process, no servers
    python -m examples.user_onboarding --servers    on RabbitMQ, with `aiki orchestrator` running

The mail server is busy at the first attempt of every message, so one task shows a retry.
"""

import asyncio
import sys

from pydantic import BaseModel

from aiki import Client, Run, TaskContext, Worker, embedded, exponential, task, workflow
from examples import outside


class Signup(BaseModel):
    """What we know of somebody who has signed up."""

    recipient: str
    name: str = "there"


class Onboarded(BaseModel):
    """What came of it."""

    profile: str
    email: str
    steps: list[str]


class MailServerBusy(Exception):  # noqa: N818 - reads as what happened
    """The mail server has no time right now."""


@task(timeout=10)
async def create_profile(context: TaskContext, recipient: str, name: str) -> str:
    """Make the profile. The key makes a second attempt find the profile of the first."""
    return await outside.call(f"create the profile of {recipient}", key=context.idempotency_key)


@task(retry=exponential(max_attempts=5, base_delay=0.5, retry_on=MailServerBusy), timeout=10)
async def send_email(context: TaskContext, recipient: str, subject: str) -> str:
    """Send an e-mail through a mail server that is often busy."""
    busy = "try again later" if context.attempt == 1 else None
    try:
        return await outside.call(f"mail {recipient}: {subject}", key=context.idempotency_key, refuse=busy)
    except outside.Refused as error:
        raise MailServerBusy(str(error)) from error


@task(timeout=10)
async def show_step(context: TaskContext, profile: str, step: str) -> str:
    """Put a first step on the start page of a profile."""
    await outside.call(f"show the step {step!r}", key=context.idempotency_key)
    return step


@workflow(version="1.0.0")
async def user_onboarding(run: Run, signup: Signup) -> Onboarded:
    """Decide what happens, in which order. What a task returned is recorded, and it never runs again."""
    profile = await create_profile.run(run, signup.recipient, signup.name)
    email = await send_email.run(run, signup.recipient, f"Welcome, {signup.name}")

    steps = []
    for step in ("pick a picture", "invite a friend", "write a note"):
        run.set_status(f"showing {step!r}")
        steps.append(await show_step.run(run, profile, step))
    return Onboarded(profile=profile, email=email, steps=steps)


async def onboard(client: Client) -> None:
    """Start a run, and wait for what comes of it."""
    async with Worker(client, workflows=[user_onboarding]):
        handle = await user_onboarding.enqueue(client, Signup(recipient="ada@example.com", name="Ada"))
        print(f"run {handle.id}")
        print(await handle.wait_for_completion(timeout=60))


async def main(*, servers: bool) -> None:
    """Connect to RabbitMQ, or bring everything along."""
    async with Client.connect() if servers else embedded() as client:
        await onboard(client)


if __name__ == "__main__":
    asyncio.run(main(servers="--servers" in sys.argv))

"""How times, durations and statuses are written for people. Pure functions of values."""

from datetime import datetime, timedelta

from aiki.engine.journal import Failure, Wait, WaitKind
from aiki.engine.status import RunStatus

__all__ = ["STATUS_STYLES", "ago", "duration", "failure_line", "operation_name", "shorten", "wait_line"]

STATUS_STYLES: dict[RunStatus, str] = {
    RunStatus.SCHEDULED: "cyan",
    RunStatus.QUEUED: "cyan",
    RunStatus.RUNNING: "bold blue",
    RunStatus.SLEEPING: "yellow",
    RunStatus.AWAITING_RETRY: "yellow",
    RunStatus.AWAITING_SIGNAL: "yellow",
    RunStatus.AWAITING_CHILD: "yellow",
    RunStatus.AWAITING_TASK: "yellow",
    RunStatus.PAUSED: "magenta",
    RunStatus.COMPLETED: "green",
    RunStatus.FAILED: "red",
    RunStatus.CANCELLED: "dim",
    RunStatus.DEAD_LETTERED: "bold red",
}

_WAITING_FOR = {
    WaitKind.TIMER: "a timer",
    WaitKind.RETRY: "the next attempt",
    WaitKind.SIGNAL: "the signal",
    WaitKind.CHILD: "the child run",
    WaitKind.TASK: "a task on another worker",
}


def duration(span: timedelta) -> str:
    """Write a duration with the two units that matter: ``840ms``, ``3.2s``, ``1m 05s``, ``2h 03m``, ``3d 04h``."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"


def ago(moment: datetime, *, now: datetime) -> str:
    """Write how far *moment* is from *now*, on either side."""
    return f"{duration(now - moment)} ago" if moment <= now else f"in {duration(moment - now)}"


def operation_name(operation: str) -> str:
    """Make the address of an operation readable: ``task:send-email:5f0c…#1`` is ``send-email``."""
    address = operation.rpartition("#")[0] or operation
    kind, _, rest = address.partition(":")
    if not rest:
        return address
    if kind == "timer":
        return f"sleep in {rest.rpartition('.')[2]}"
    name = rest.rpartition(":")[0] or rest
    return name if kind == "task" else f"{kind} {name}"


def failure_line(failure: Failure) -> str:
    """Write a failure on one line."""
    text = " ".join(failure.message.split())
    return f"{failure.type}: {text}" if text else failure.type


def wait_line(wait: Wait, *, now: datetime) -> str:
    """Write what a suspended run waits for."""
    text = f"waits for {_WAITING_FOR[wait.kind]}"
    if wait.name and wait.kind is WaitKind.CHILD:
        text += f" {wait.name}"
    return f"{text}, due {ago(wait.due_at, now=now)}" if wait.due_at else text


def shorten(text: str, width: int) -> str:
    """Cut *text* to *width* characters, with an ellipsis where something is missing."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"

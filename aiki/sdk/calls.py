"""Where in a workflow something was asked for, and whether the code that runs is a workflow's at all."""

import sys
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import NamedTuple

__all__ = ["INSIDE_WORKFLOW", "Caller", "caller_outside"]

INSIDE_WORKFLOW: ContextVar[bool] = ContextVar("aiki_inside_workflow", default=False)
"""Set while the code of a workflow runs, and in every asyncio task that it creates."""


class Caller(NamedTuple):
    """A line of code. Only what is needed to write it down later: almost none is ever read."""

    code: CodeType
    line: int

    @property
    def function(self) -> str:
        """The qualified name of the function."""
        return self.code.co_qualname

    @property
    def where(self) -> str:
        """The line, as a person writes it: ``file.py:42 in function``."""
        return f"{self.code.co_filename.rpartition('/')[2]}:{self.line} in {self.code.co_qualname}"


_OURS = ("asyncio", "aiki")


def caller_outside(depth: int) -> Caller:
    """Find the innermost line that is neither asyncio's nor ours, *depth* frames up or further.

    Where a loop called us directly (a coroutine given to ``gather``), it is the outermost
    function that does not belong to the loop itself.
    """
    frame: FrameType | None = sys._getframe(depth + 1)
    last = frame
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _OURS:
            return Caller(frame.f_code, frame.f_lineno)
        if frame.f_code.co_qualname in _LOOP_STEPS:
            break
        last, frame = frame, frame.f_back
    assert last is not None
    return Caller(last.f_code, last.f_lineno)


# From these frames on down is whatever drives the workflow: it says nothing of the workflow.
_LOOP_STEPS = ("Handle._run", "WorkflowLoop.run_until_quiescent")

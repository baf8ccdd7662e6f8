"""The registry: which workflows and tasks a worker has, by the names that commands use."""

from collections.abc import Iterator
from typing import Any

from aiki.errors import ConfigurationError, DuplicateNameError, UnknownTaskError, UnknownWorkflowError
from aiki.sdk.task import Task
from aiki.sdk.workflow import Workflow

__all__ = ["Registry"]


class Registry:
    """Workflows by name and version, tasks by name."""

    def __init__(self, *definitions: Workflow[..., Any] | Task[..., Any]) -> None:
        self._workflows: dict[tuple[str, str], Workflow[..., Any]] = {}
        self._tasks: dict[str, Task[..., Any]] = {}
        self.add(*definitions)

    def add(self, *definitions: Workflow[..., Any] | Task[..., Any]) -> None:
        """Serve these too. Several versions of a workflow live side by side.

        Raises:
            DuplicateNameError: there is another one of that name (and version).
            ConfigurationError: it is neither a workflow nor a task, or its annotations cannot be used.
        """
        for definition in definitions:
            if isinstance(definition, Workflow):
                self._add_workflow(definition)
            elif isinstance(definition, Task):
                self._add_task(definition)
            else:
                raise ConfigurationError(
                    f"{definition!r} is neither a workflow nor a task", hint="decorate it with @workflow or @task"
                )

    def _add_workflow(self, workflow: Workflow[..., Any]) -> None:
        known = self._workflows.setdefault((workflow.name, workflow.version), workflow)
        if known.function is not workflow.function:
            raise DuplicateNameError("workflow", workflow.queue)
        workflow.signature.prepare()

    def _add_task(self, task: Task[..., Any]) -> None:
        known = self._tasks.setdefault(task.name, task)
        if known.function is not task.function:
            raise DuplicateNameError("task", task.name)
        task.signature.prepare()

    def workflow(self, name: str, version: str) -> Workflow[..., Any]:
        """Find a workflow.

        Raises:
            UnknownWorkflowError: there is none of that name and version.
        """
        try:
            return self._workflows[name, version]
        except KeyError:
            served = [workflow.queue for workflow in self._workflows.values()]
            raise UnknownWorkflowError(name, version, served=served) from None

    def task(self, name: str) -> Task[..., Any]:
        """Find a task.

        Raises:
            UnknownTaskError: there is none of that name.
        """
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTaskError(name, served=self._tasks) from None

    @property
    def workflows(self) -> tuple[Workflow[..., Any], ...]:
        """All workflows, in the order of adding."""
        return tuple(self._workflows.values())

    @property
    def tasks(self) -> tuple[Task[..., Any], ...]:
        """All tasks that were added by themselves, in the order of adding."""
        return tuple(self._tasks.values())

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that belong to what is here: one for each workflow and version, those named by tasks."""
        return tuple(dict.fromkeys(self._queues()))

    def _queues(self) -> Iterator[str]:
        yield from (workflow.queue for workflow in self._workflows.values())
        yield from (task.options.queue for task in self._tasks.values() if task.options.queue is not None)

"""What is compared: the same two workflows, asked of two systems, and the CPU that each takes for it."""

from collections.abc import Mapping
from typing import Protocol

import psutil

from aiki import Client
from bench.beside.http import HttpClient
from bench.beside.restate import RestateNode, ServiceNode
from bench.load import FAN_OUT
from bench.system import System
from bench.workflows import fan_out, run_three

__all__ = ["AikiSide", "RestateSide", "Side"]

SUM = sum(number + 1 for number in range(FAN_OUT))


class Side(Protocol):
    """A system that is up. What it is asked for is awaited to its end, and its result is checked."""

    name: str

    async def three_steps(self, number: int) -> None:
        """W1: three steps, each recorded before the next begins."""

    async def fan_out(self, number: int) -> None:
        """W2: 100 steps side by side."""

    def cpu(self) -> Mapping[str, float]:
        """Tell the CPU seconds that each of its processes has taken so far, and those of the client."""


class AikiSide(Side):
    """An orchestrator and a worker, on RabbitMQ and MongoDB."""

    name = "Aiki"

    def __init__(self, system: System, client: Client) -> None:
        self._system = system
        self._client = client

    async def three_steps(self, number: int) -> None:
        await run_three(self._client, number)

    async def fan_out(self, number: int) -> None:
        handle = await fan_out.enqueue(self._client, FAN_OUT)
        assert await handle.wait_for_completion(timeout=120) == SUM

    def cpu(self) -> Mapping[str, float]:
        return self._system.cpu()


class RestateSide(Side):
    """A Restate server and the service that it calls, asked through its ingress."""

    name = "Restate"

    def __init__(self, server: RestateNode, service: ServiceNode, http: HttpClient) -> None:
        self._server = server
        self._service = service
        self._http = http

    async def three_steps(self, number: int) -> None:
        assert await self._http.post("/Bench/three_steps", b"%d" % number) == b"%d" % (number + 3)

    async def fan_out(self, number: int) -> None:
        assert await self._http.post("/Bench/fan_out", b"%d" % FAN_OUT) == b"%d" % SUM

    def cpu(self) -> Mapping[str, float]:
        processes = {"server": self._server.pid, "service": self._service.pid}
        client = sum(psutil.Process().cpu_times()[:2])
        return {**{name: _cpu_of_family(pid) for name, pid in processes.items()}, "client": client}


def _cpu_of_family(pid: int) -> float:
    """Count a process and those that it started: granian works in a child."""
    process = psutil.Process(pid)
    return sum(sum(member.cpu_times()[:2]) for member in (process, *process.children(recursive=True)))

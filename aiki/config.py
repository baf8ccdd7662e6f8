"""Settings: read once, from the environment and ``pyproject.toml``, and typed from then on.

``AIKI_PARTITIONS=16`` in the environment and ``partitions = 16`` under
``[tool.aiki]`` say the same; the environment wins. A value that cannot be right
is refused at once, by name, with what is allowed.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from aiki.errors import ConfigurationError
from aiki.observability.secrets import masked

__all__ = [
    "DURATION_MAX",
    "Address",
    "Allowed",
    "Settings",
    "load_settings",
    "parse_address",
    "parse_duration",
    "unknown_variables",
]

PREFIX = "AIKI_"

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a setting may be, in words: for its error message and its documentation."""

    text: str


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_duration(value: object) -> object:
    """Read seconds or a text such as ``30d`` or ``1h30m``; anything else is handed on for pydantic to refuse."""
    if isinstance(value, str):
        text = value.strip().replace(" ", "").lower()
        try:
            if _DURATION.fullmatch(text):
                return timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in _DURATION_PART.findall(text)))
            return timedelta(seconds=float(text))
        except (ValueError, OverflowError):
            return value
    return value


def parse_address(value: object) -> object:
    """Read ``host:port``, or a port alone for every interface."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        return value if value else None
    host, _, port = value.strip().rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not an address")
    return Address(host.strip("[]") or "0.0.0.0", int(port))


def _split(value: object) -> object:
    return [part for part in re.split(r"[,\s]+", value) if part] if isinstance(value, str) else value


def _path(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    if "\0" in value:
        raise ValueError("a path has no zeros in it")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # There is no such user.
        raise ValueError(str(error)) from error


# Added to the present it still is a date.
DURATION_MAX = timedelta(days=36_500)

Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(gt=timedelta(0), le=DURATION_MAX)]
_A_DURATION = Allowed("a duration: seconds, or such as 500ms, 30s, 15m, 12h, 30d; at most 100 years")

# Shorter than any hiccup it would be lost all the time; a day after its worker died, nobody waits for a run any more.
_Lease = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(seconds=1), le=timedelta(days=1))]
_A_LEASE = Allowed("a duration such as 30s, 15m, 12h, from 1s to 1d")


class Settings(BaseModel):
    """Everything that can be set, with its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True)

    amqp_url: Annotated[
        str | None,
        Field(
            pattern=r"^(amqps?://|embedded:.)",
            repr=False,
            description="The broker. Unset: a running `aiki dev`, else amqp://localhost.",
        ),
        Allowed("amqp://user:password@host:5672/vhost, amqps://…, or embedded:PATH of an `aiki dev` database"),
    ] = None
    mongodb_url: Annotated[
        str,
        Field(pattern=r"^mongodb(\+srv)?://", repr=False, description="The store; only orchestrators use it."),
        Allowed("mongodb://host:27017/?replicaSet=… or mongodb+srv://…"),
    ] = "mongodb://localhost:27017"
    mongodb_database: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9_-]{1,63}$",
            description="The database in it. Unset: the one that the URL names, else aiki.",
        ),
        Allowed("letters, digits, '_' and '-', at most 63"),
    ] = None
    heartbeat: Annotated[
        int,
        Field(
            ge=1,
            le=600,
            description="Seconds between heartbeats with RabbitMQ; a frozen process loses its runs after about three.",
        ),
        Allowed("a whole number of seconds from 1 to 600"),
    ] = 10
    partitions: Annotated[
        int,
        Field(ge=1, le=256, description="How many queues the events are spread over; fixed once runs exist."),
        Allowed("a whole number from 1 to 256"),
    ] = 8
    app: Annotated[
        tuple[str, ...],
        BeforeValidator(_split),
        Field(description="The modules that hold the workflows and tasks."),
        Allowed("modules to import, such as shop.workflows or shop.main:workflows, separated by commas"),
    ] = ()
    data: Annotated[
        Path,
        BeforeValidator(_path),
        Field(description="The database file of `aiki dev`."),
        Allowed("a path"),
    ] = Path(".aiki/dev.db")
    concurrency: Annotated[
        int,
        Field(ge=1, le=10_000, description="How many runs a worker holds at the same time."),
        Allowed("a whole number from 1 to 10000"),
    ] = 100
    retention: Annotated[
        Duration, Field(description="How long finished runs are kept, unless they say otherwise."), _A_DURATION
    ] = timedelta(days=30)
    shutdown_grace: Annotated[
        Duration, Field(description="How long a stop waits for tasks that are executing."), _A_DURATION
    ] = timedelta(seconds=30)
    lease_after: Annotated[
        _Lease,
        Field(
            description="How long a worker holds the order of a run before it acknowledges it and goes on under a "
            "lease; well below the broker's consumer_timeout."
        ),
        _A_LEASE,
    ] = timedelta(minutes=10)
    lease: Annotated[
        _Lease,
        Field(description="How long such a lease holds, and so how late its run goes on if the worker dies."),
        _A_LEASE,
    ] = timedelta(minutes=5)
    timeout: Annotated[
        Duration, Field(description="How long a client waits for the broker or for an answer."), _A_DURATION
    ] = timedelta(seconds=30)
    health: Annotated[
        Address | None,
        BeforeValidator(parse_address),
        Field(description="Where the orchestrator answers /live and /ready. Unset: nowhere."),
        Allowed("host:port, or a port"),
    ] = None
    management_url: Annotated[
        str | None,
        Field(
            pattern=r"^https?://",
            repr=False,
            description="RabbitMQ's management API, for `aiki doctor`. Unset: port 15672 of the broker's host.",
        ),
        Allowed("http://user:password@host:15672"),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
        Field(description="The least important logs that are written."),
        Allowed("debug, info, warning or error"),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Field(description="How logs are written; auto: console on a terminal, else JSON."),
        Allowed("auto, console or json"),
    ] = "auto"
    uvloop: Annotated[
        bool,
        Field(description="Whether orchestrator, worker, dev and bench run on uvloop; `pip install 'aiki[uvloop]'`."),
        Allowed("true or false, 1 or 0"),
    ] = False

    root: Annotated[Path, Field(exclude=True)] = Path()
    """Where relative paths and the app's modules are found: the folder of ``pyproject.toml``, or the current one."""

    def data_path(self) -> Path:
        """Tell where the database of `aiki dev` is."""
        return self.data if self.data.is_absolute() else (self.root / self.data).absolute()


def load_settings(
    environ: Mapping[str, str] | None = None,
    *,
    directory: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings of this process. *overrides* are what its command line says: they win.

    Raises:
        ConfigurationError: a value is wrong; its name, where it stands and what is allowed are in the message.
    """
    environ = os.environ if environ is None else environ
    directory = (directory or Path.cwd()).absolute()
    names = [name for name in Settings.model_fields if name != "root"]

    file, values = _read_project(directory, names)
    origins = {name: f"{name} under [tool.aiki] in {file}" for name in values}
    for name in names:
        variable = PREFIX + name.upper()
        # An empty variable is how shells and compose files say "not set".
        if environ.get(variable, "").strip():
            values[name] = environ[variable].strip()
            origins[name] = variable
    for name, value in (overrides or {}).items():
        values[name] = value
        origins[name] = "the URL" if name.endswith("_url") else f"--{name.replace('_', '-')}"

    try:
        return Settings(**values, root=file.parent if file else directory)
    except ValidationError as error:
        raise _refusal(error, origins) from None  # Pydantic's own text would show the value, and it may be a password.


def unknown_variables(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Find variables that look like settings and are none, each with the setting that may be meant."""
    environ = os.environ if environ is None else environ
    known = {PREFIX + name.upper() for name in Settings.model_fields if name != "root"} | {"AIKI_DEBUG"}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return {name: next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None) for name in unknown}


def _read_project(directory: Path, names: list[str]) -> tuple[Path | None, dict[str, Any]]:
    for folder in (directory, *directory.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        table = _table(file)
        if table is None:
            continue
        values = {name.replace("-", "_"): value for name, value in table.items()}
        for name in values:
            if name not in names:
                close = get_close_matches(name, names, n=1)
                raise ConfigurationError(
                    f"{file} has an unknown setting {name!r} under [tool.aiki]",
                    hint=f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names)}",
                )
        return file, values
    return None, {}


def _table(file: Path) -> dict[str, Any] | None:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}", hint="mend the file") from error
    tools = content.get("tool", {})
    table = tools.get("aiki") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise ConfigurationError(f"tool.aiki in {file} is not a table", hint="write its settings under [tool.aiki]")
    return table


_SHOWN_MAX = 200


def _refusal(error: ValidationError, origins: Mapping[str, str]) -> ConfigurationError:
    problem = error.errors(include_url=False, include_context=False)[0]
    name = str(problem["loc"][0])
    value = masked(str(problem["input"])[:_SHOWN_MAX])
    return ConfigurationError(
        f"{origins.get(name, name)} is {value!r}, which cannot be used",
        hint=f"allowed: {_allowed(Settings.model_fields[name])}",
    )


def _allowed(field: FieldInfo) -> str:
    return next(part.text for part in field.metadata if isinstance(part, Allowed))

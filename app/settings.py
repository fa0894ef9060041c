"""Everything that two deployments of the gateway may set differently, read once from `GATEWAY_*` and `.env`.

`python -m app.settings` prints as JSON what is in force, where each value comes from, and what is wrong.
"""

from __future__ import annotations

import json
import re
import sys
import typing
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

MEGABYTE = 1_000_000


PREFIX = "GATEWAY_"
FILE = ".env"
BOUNDS = {"ge": "{} or more", "gt": "more than {}", "le": "at most {}"}


class Settings(BaseSettings):
    """The gateway's settings. Sizes are bytes, times are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=FILE, extra="ignore", frozen=True, populate_by_name=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for all of this machine's.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 for any that is free.")
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Gateway processes that share the port. `/metrics` sums all of them; one that dies is replaced.",
    )
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated host names that clients may use, besides `localhost` and IP addresses; "
        "`*.example.com` for all subdomains, `*` for any name. Default: no others if `GATEWAY_HOST` is a loopback "
        "address, any name otherwise.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated origins, such as `https://app.example.com`, whose web pages may call the "
        "gateway; `*` for any. Default: only the gateway's own pages.",
    )
    triton_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Triton's gRPC addresses: `host:port`, or several separated by commas, or `dns:///name:port` for "
        "all addresses of a name. Default: `127.0.0.1` and `TRITON_GRPC_PORT`.",
    )
    triton_grpc_port: int = Field(
        default=8001,
        ge=1,
        le=65535,
        validation_alias=AliasChoices("TRITON_GRPC_PORT", "triton_grpc_port"),
        description="gRPC port of Triton on this machine; used when `GATEWAY_TRITON_URLS` is empty.",
    )
    triton_control_key_file: str = Field(
        default=".triton/control.key",
        validation_alias=AliasChoices("TRITON_CONTROL_KEY_FILE", "triton_control_key_file"),
        description="File with the key of Triton's control protocols, which the gateway needs to list the models. It "
        "reads the file when Triton asks for the key, and again when the file changes.",
    )

    default_timeout_ms: int = Field(
        default=10_000, ge=50, description="Deadline, in ms, of a request without `X-Request-Timeout-Ms`."
    )
    max_timeout_ms: int = Field(
        default=60_000, ge=50, description="Longest deadline, in ms, that `X-Request-Timeout-Ms` may set."
    )
    body_timeout_s: float = Field(
        default=30, gt=0, description="Timeout for receiving a request body; the request's deadline applies as well."
    )
    write_timeout_s: float = Field(
        default=30,
        gt=0,
        description="Timeout for a client to read its answer. A client that reads a large answer slower than 20 kB/s "
        "over this time is disconnected.",
    )
    drain_delay_s: float = Field(
        default=0,
        ge=0,
        description="Time after SIGTERM in which the gateway still serves but `/readyz` fails, so that load balancers "
        "stop sending requests.",
    )
    drain_timeout_s: int = Field(
        default=5,
        ge=0,
        description="Time for running requests to finish at shutdown; the others are answered 503 `draining`.",
    )

    max_image_bytes: int = Field(
        default=20 * MEGABYTE,
        ge=1,
        description="Largest encoded image. Its pixels are limited by `max_pixels` in the model's `model.yaml`.",
    )
    max_text_bytes: int = Field(default=1 * MEGABYTE, ge=1, description="Longest text.")
    max_batch_items: int = Field(default=64, ge=1, description="Largest number of items in a batch.")
    max_batch_bytes: int = Field(default=64 * MEGABYTE, ge=1, description="Largest batch: all its items together.")
    max_bytes_in_flight: int = Field(
        default=256 * MEGABYTE,
        ge=1,
        description="Memory, per worker, for request bodies, fetched images and unread answers; beyond it, requests "
        "get 429.",
    )
    max_items_per_model: int = Field(
        default=128,
        ge=1,
        description="Upper bound of a model's concurrency limit, which is the number of items with Triton at once. The "
        "gateway measures the limit itself.",
    )
    max_queue_per_model: int = Field(
        default=128,
        ge=0,
        description="Longest queue of single requests for a model; beyond it, requests get 429. Items of batches have "
        "a queue of their own; the two queues take turns.",
    )
    join_items: bool = Field(
        default=True, description="Coalescing: texts that wait for a fast model share one call to Triton."
    )
    image_url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated hosts from which the gateway fetches `image_url`; it follows no redirects. "
        "Default: `image_url` is off.",
    )

    log_format: Literal["console", "json"] = Field(
        default="console", description="`console` for people, `json` for log collectors."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged."
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: dict[str, object]) -> dict[str, object]:
        """Let an empty variable mean the default, as in `modelctl` and Compose."""
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("hosts", "cors_origins", "image_url_hosts", "triton_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip().lower() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("triton_urls")
    @classmethod
    def _one_name(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not re.fullmatch(r"(dns:///)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+):[0-9]{1,5}", url):
                raise ValueError(f"'{url}' is neither host:port nor dns:///name:port")
        if len(value) > 1 and any(url.startswith("dns:///") for url in value):
            raise ValueError("dns:///name:port must be the only address: it names all of Triton's")
        return value

    @field_validator("host")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            ip_address(value)
        except ValueError as error:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
                what = f"'{value}' is not an address to listen on, such as 0.0.0.0, without scheme and port"
                raise ValueError(what) from error
        return value

    @field_validator("hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[?[0-9a-f:.]+\]?", name):
                raise ValueError(f"'{name}' is neither a host name (without scheme and port) nor *.name nor *")
        return value

    @field_validator("image_url_hosts")
    @classmethod
    def _image_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[^\s/@*:]+|[0-9a-f:.]+", name):
                raise ValueError(f"'{name}' is not a host name such as images.example.com, without scheme and port")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"\*|https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", origin):
                raise ValueError(
                    f"'{origin}' is neither an origin such as https://app.example.com:8443, without a path, nor *"
                )
        return value

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the gateway."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """The allowed host names: any where others reach the gateway, because probes may call a pod by any name."""
        return self.hosts or (() if self.loopback else ("*",))

    @property
    def triton_addresses(self) -> tuple[str, ...]:
        """The addresses that gRPC channels connect to."""
        return self.triton_urls or (f"127.0.0.1:{self.triton_grpc_port}",)


VARIABLES = {
    (name if field.validation_alias else f"{PREFIX}{name}").upper(): name
    for name, field in Settings.model_fields.items()
}
"""The setting that each variable sets."""


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the allowed words of a setting; none when it is a number or any text."""
    if field.annotation is bool:
        return "true", "false"
    return typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()


def limits(field: FieldInfo) -> str:
    """Return the allowed values of a setting that has no list of words, such as `whole number, 1 to 64`."""
    if field.annotation is str or typing.get_origin(field.annotation) is tuple:
        return "text"
    bounds = {name: getattr(one, name) for one in field.metadata for name in BOUNDS if hasattr(one, name)}
    kind = "whole number" if field.annotation is int else "number"
    if {"ge", "le"} <= bounds.keys():
        return f"{kind}, {bounds['ge']} to {bounds['le']}"
    return ", ".join([kind, *(BOUNDS[name].format(value) for name, value in bounds.items())])


def read() -> Settings:
    """Return the settings of the environment and `.env`.

    Raises:
        SettingsError: when a value is invalid.

    """
    try:
        return Settings()
    except ValidationError as error:
        places = sources()
        raise SettingsError([_fault(one, places) for one in error.errors()]) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise SettingsError([f"{FILE} cannot be read: {reason}."]) from error


class SettingsError(Exception):
    """Invalid settings.

    Attributes:
        faults: a sentence for each invalid value, with its variable and the allowed values.

    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__(" ".join(faults))
        self.faults = faults


def _fault(error: Any, places: dict[str, str]) -> str:
    """Return a sentence for one of pydantic's errors."""
    named = str(error["loc"][0])
    variable = named if named in VARIABLES else f"{PREFIX}{named}".upper()
    where = f" in {FILE}" if places.get(variable) == FILE else ""
    if error["type"] == "value_error":  # raised above, in our own words
        return f"{variable}{where}: {error['ctx']['error']}."
    field = Settings.model_fields[VARIABLES[variable]]
    may_be = ", ".join(choices(field)) or f"a {limits(field)}"
    return f"{variable}{where} is '{error['input']}'; it may be {may_be}."


def sources() -> dict[str, str]:
    """Return the source of each variable that is set: `environment` or `.env`."""
    found: dict[str, str] = {}
    for place, source in ((FILE, DotEnvSettingsSource), ("environment", EnvSettingsSource)):
        for name, value in source(Settings).env_vars.items():
            if value:
                found[name.upper()] = place
            else:
                found.pop(name.upper(), None)  # an empty variable of the environment stands for the default
    return found


def unknown_variables() -> dict[str, str | None]:
    """Return each GATEWAY_ variable that is set but that no setting reads, with the most similar known variable."""
    names = [name for name in sorted(sources()) if name.startswith(PREFIX)]
    return {name: next(iter(get_close_matches(name, VARIABLES, 1)), None) for name in names if name not in VARIABLES}


def main() -> int:
    """Print the settings in force as JSON; return 2 when one is invalid."""
    report: dict[str, Any] = {"settings": [], "unknown": {}, "faults": []}
    try:
        values = read().model_dump(mode="json")
        places = sources()
        report["settings"] = [
            {"name": variable, "value": values[name], "source": places.get(variable, "default")}
            for variable, name in VARIABLES.items()
        ]
        report["unknown"] = unknown_variables()
    except SettingsError as error:
        report["faults"] = error.faults
    print(json.dumps(report))
    return 2 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())

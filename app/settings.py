"""Everything that two deployments of the gateway may set differently, read once from `GATEWAY_*` and `.env`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, NoDecode, SettingsConfigDict

MEGABYTE = 1_000_000


PREFIX = "GATEWAY_"


class Settings(BaseSettings):
    """The gateway's settings. Sizes are bytes, times are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    triton_urls: str | None = Field(default=None, description="host:port of Triton's gRPC; by default on this machine.")
    triton_grpc_port: int = Field(default=8001, validation_alias=AliasChoices("TRITON_GRPC_PORT", "triton_grpc_port"))

    default_timeout_ms: int = Field(default=10_000, ge=50, description="A request's deadline when it names none.")
    max_timeout_ms: int = Field(default=60_000, ge=50, description="The longest deadline that a request may ask for.")
    body_timeout_s: float = Field(default=30, gt=0, description="Time for a request's body to arrive.")
    drain_timeout_s: int = Field(default=5, ge=0, description="Time for running requests to finish at shutdown.")

    max_image_bytes: int = Field(default=20 * MEGABYTE, ge=1)
    max_text_bytes: int = Field(default=1 * MEGABYTE, ge=1)
    max_batch_items: int = Field(default=64, ge=1)
    max_batch_bytes: int = Field(default=64 * MEGABYTE, ge=1)
    max_bytes_in_flight: int = Field(default=256 * MEGABYTE, ge=1, description="All bodies held at once, in a process.")
    max_items_per_model: int = Field(
        default=128,
        ge=2,
        description="Items of one model under way at once; one for batches and one for others at least.",
    )
    image_url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Hosts, separated by commas, from which `image_url` may be fetched; none: it is off."
    )

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("image_url_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return (
            tuple(part.strip().lower() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @property
    def triton_target(self) -> str:
        """The address that the gRPC channel connects to."""
        return self.triton_urls or f"127.0.0.1:{self.triton_grpc_port}"


def unknown_variables() -> dict[str, str | None]:
    """Return each GATEWAY_ variable of the environment or `.env` that no setting reads, and the one it is most like."""
    known = [
        (name if field.validation_alias else f"{PREFIX}{name}").upper() for name, field in Settings.model_fields.items()
    ]
    given = {**EnvSettingsSource(Settings).env_vars, **DotEnvSettingsSource(Settings).env_vars}
    names = sorted(name.upper() for name in given if name.upper().startswith(PREFIX))
    return {name: next(iter(get_close_matches(name, known, 1)), None) for name in names if name not in known}

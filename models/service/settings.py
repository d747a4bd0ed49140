"""What a service accepts, how long it works on a request, and what it allows."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ..errors import InputError
from ..records import check_fields

TOKEN = "ENCLAP_TOKEN"  # environment variable
LEAST_TOKEN = 16  # characters


class Limits(BaseModel):
    """What one process of a service takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    max_upload_mib: float = Field(64.0, gt=0, le=4096)
    max_duration_s: float = Field(600.0, gt=0, description="of the sound in a request")
    max_windows: int = Field(600, ge=1, description="of a timeline")
    max_requests: int = Field(64, ge=1, description="received, waiting or answered at once: no queue is longer")
    timeout_s: float = Field(120.0, gt=0, description="to receive a request's body, and again to answer it")
    batch_size: int = Field(16, ge=1, description="sounds that are captioned together")
    batch_wait_s: float = Field(0.01, ge=0, description="that a batch which is not full waits for more")

    @property
    def max_upload_bytes(self) -> int:
        """Return how many bytes a sound may have."""
        return int(self.max_upload_mib * 2**20)


class ServiceSettings(Limits):
    """The limits of a service, and what it allows."""

    share_audio: bool = False  # let clients listen to the files that `enclap index` added
    write_index: bool = False  # let clients add sounds to the bundle's index, and remove them
    token: SecretStr | None = None  # that clients must send


def read_settings(
    host: str, token_file: Path | None, limits: list[str], share_audio: bool, write_index: bool
) -> ServiceSettings:
    """Return the settings of a command line.

    Args:
        host: that the service listens on; where other machines can connect, there must be a token.
        limits: NAME=VALUE, of `Limits`.

    Raises:
        InputError: one of them cannot be used.
    """
    token = _read_token(token_file)
    if token is None and not is_local(host):
        raise InputError(
            f"--host {host}: other machines can connect there, expected a token: set {TOKEN} or --token-file, or leave "
            "--host out to listen on this machine alone"
        )
    return ServiceSettings(**_read_limits(limits), share_audio=share_audio, write_index=write_index, token=token)


def _read_limits(given: list[str]) -> dict[str, Any]:
    pairs = [one.partition("=") for one in given]
    if wrong := [one for one, (_, equals, _) in zip(given, pairs, strict=True) if not equals]:
        raise InputError(f"--limit: found {wrong[0]!r}, expected NAME=VALUE, such as max_duration_s=900")
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    return check_fields(Limits, fields, "--limit", f"limits are {', '.join(Limits.model_fields)}").model_dump()


def _read_token(file: Path | None) -> SecretStr | None:
    where = str(file or TOKEN)
    try:
        found = file.read_text(encoding="utf-8").strip() if file else os.environ.get(TOKEN, "").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: cannot be read ({error}); expected a file that holds a token") from error
    if not found and not file:
        return None
    if len(found) < LEAST_TOKEN or not all("!" <= letter <= "~" for letter in found):
        raise InputError(
            f"{where}: found a token of {len(found)} characters, expected {LEAST_TOKEN} or more, ASCII without spaces, "
            "such as `openssl rand -hex 32` prints"
        )
    return SecretStr(found)


def is_local(host: str) -> bool:
    """Return whether a host name or address is this machine's own and no other's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"

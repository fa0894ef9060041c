"""Whether the Hugging Face Hub can be reached: asked once, in bounded time, before its library retries for long."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from modelctl.errors import CommandError

ENDPOINT = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
TIMEOUT_S = 2.0
PORTS = {"http": 80, "https": 443}


def require(source: str, place: str) -> None:
    """Make the hub's libraries read their cache alone when the hub cannot be reached.

    They would retry for half a minute. Call it before they are imported, since they read their environment then.
    `place` is the repository in `source`.

    Raises:
        CommandError: when the cache does not hold the repository either.

    """
    if Path(place).is_dir():  # which the libraries read first
        return
    is_off = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if not is_off and _is_reachable():
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import try_to_load_from_cache

    try:
        is_cached = isinstance(try_to_load_from_cache(place, "config.json"), str)
    except ValueError:  # it is not a repository's name
        is_cached = False
    if not is_cached:
        why = "HF_HUB_OFFLINE is set" if is_off else f"{ENDPOINT} cannot be reached"
        raise CommandError(
            f"{source} cannot be fetched: {why}, and the cache does not hold it. Fetch the folder elsewhere "
            "(hf download) and give its path."
        )


def _is_reachable() -> bool:
    """Tell whether a connection to the hub, or to the proxy on the way, opens within `TIMEOUT_S`.

    A thread bounds the look-up of the name as well, which has no timeout of its own.
    """
    found: list[bool] = []
    thread = Thread(target=lambda: found.append(_connects(*_address())), daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return found == [True]


def _address() -> tuple[str, int]:
    """Return host and port of the hub, or of the proxy that leads to it."""
    hub = urlsplit(ENDPOINT)
    proxies = getproxies()
    proxy = proxies.get(hub.scheme) or proxies.get("all", "")
    if proxy and "://" not in proxy:  # as httpx reads it
        proxy = f"http://{proxy}"
    place = urlsplit(proxy if proxy and not proxy_bypass(hub.hostname or "") else ENDPOINT)
    return place.hostname or "", place.port or PORTS.get(place.scheme, 443)


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except OSError:
        return False
    return True

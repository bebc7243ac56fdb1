"""A network of a test's own, joined to this one by a cable that can be pulled; it needs root and network namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

#: where servers of this side are reached from either side, whatever becomes of the cable
SERVICE = "10.231.8.1"
_HERE, _THERE = "10.231.7.1", "10.231.7.2"


@dataclass(frozen=True)
class Link:
    """The cable; ``within`` starts a command on the other side."""

    within: tuple[str, ...]
    device: str

    def pull(self) -> None:
        """From now on packets are lost, and nobody hears of it."""
        _ip("link", "set", self.device, "down")

    def plug_in(self) -> None:
        """They arrive again."""
        _ip("link", "set", self.device, "up")


@contextmanager
def link() -> Iterator[Link]:
    """Another network; the test skips where it may not be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the program ip (apt-get install iproute2)")
    name = f"cq{os.getpid()}"
    here, there = f"{name}h", f"{name}t"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace may be made here: {error.stderr.strip()}")
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _ip("addr", "add", f"{_HERE}/24", "dev", here)
        _ip("addr", "add", f"{SERVICE}/32", "dev", "lo")
        _ip("link", "set", here, "up")
        _ip("-n", name, "addr", "add", f"{_THERE}/24", "dev", there)
        for device in (there, "lo"):
            _ip("-n", name, "link", "set", device, "up")
        _ip("-n", name, "route", "add", f"{SERVICE}/32", "via", _HERE)
        yield Link(("ip", "netns", "exec", name), here)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)  # the cable goes with it
        subprocess.run(["ip", "addr", "del", f"{SERVICE}/32", "dev", "lo"], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

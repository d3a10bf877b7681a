"""A consumer: apt, updating in a loop and fetching a package each time, whatever happens to the installation."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
from surroundings import variables

_TIMEOUT = 600
_PAUSE = 0.3
_DIRECTORIES = ("etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d", "lists/partial", "archives/partial")
_CONFIGURATION = """\
Dir::Etc "{place}/etc"; Dir::Etc::Parts "apt.conf.d"; Dir::Etc::SourceList "{place}/sources.list";
Dir::Etc::SourceParts "/dev/null"; Dir::Etc::PreferencesParts "preferences.d"; Dir::State "{place}";
Dir::Etc::TrustedParts "trusted.gpg.d"; Dir::State::Lists "lists"; Dir::State::Status "{place}/status";
Dir::Cache "{place}"; APT::Sandbox::User ""; Acquire::http::Proxy "DIRECT"; Acquire::Retries "0";
"""
_COMPLAINTS = ("W:", "E:", "Err:")


@dataclass
class Consumer:
    """What a client saw: how often it updated, and what it complained about."""

    place: Path
    package: str
    updates: int = 0
    errors: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, url: str) -> Iterator[Consumer]:
        """Update until the end, on the machine's own clock."""
        self._prepare(url)
        thread = threading.Thread(target=self._loop)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join(_TIMEOUT)

    def _prepare(self, url: str) -> None:
        for directory in _DIRECTORIES:
            (self.place / directory).mkdir(parents=True, exist_ok=True)
        (self.place / "status").touch()
        (self.place / "key.asc").write_bytes(requests.get(f"{url}/keys/cleanroom.asc", timeout=_TIMEOUT).content)
        source = f"deb [signed-by={self.place}/key.asc arch=amd64] {url}/apt testing debian-12\n"
        (self.place / "sources.list").write_text(source)
        (self.place / "apt.conf").write_text(_CONFIGURATION.format(place=self.place))

    def _loop(self) -> None:
        while not self._ended.is_set():
            begun = time.monotonic()
            self._run("update", "--error-on=any")
            self.updates += 1
            self._run("download", self.package)
            for fetched in self.place.glob("*.deb"):
                fetched.unlink()
            # A slow machine has other work than this, too.
            self._ended.wait(max(_PAUSE, time.monotonic() - begun))

    def _run(self, *words: str) -> None:
        environment = {**variables(), "APT_CONFIG": str(self.place / "apt.conf"), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                ["apt-get", "--quiet", *words],
                cwd=self.place,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            self.errors.append(str(error))
            return
        printed = done.stdout + done.stderr
        if done.returncode != 0 or any(line.startswith(_COMPLAINTS) for line in printed.splitlines()):
            self.errors.append(f"apt-get {' '.join(words)}, status {done.returncode}:\n{printed}")

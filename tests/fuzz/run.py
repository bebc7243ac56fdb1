"""Probe a hostile folder as ``ingest`` would, decode what passed as training would, and judge how it went."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coefvq.config import MediaLimits, MediaSpec
from coefvq.data.media.clips import ClipStore
from coefvq.data.media.decode import DEFAULT_LIMITS
from coefvq.data.media.probe import probe_all
from coefvq.records import REASONS, VideoInput
from tests.fuzz.corpus import Case, make

#: those of params.yaml, but less time, so that a run of many bombs ends
LIMITS = DEFAULT_LIMITS.model_copy(update={"cpu_seconds": 10, "wall_seconds": 20.0})
_SPEC = MediaSpec(frames=8, frame_size=64, audio_seconds=3.0)
_GRACE = 20.0  # seconds beyond the wall limit for a worker to end and the next to start


@dataclass
class Summary:
    """What happened; empty ``violations`` is the verdict hoped for."""

    reasons: dict[str, Counter[str]]
    seconds: float
    longest_wait: float
    worker_peak_mib: float
    parent_growth_mib: float
    decoded: Counter[str] = field(default_factory=Counter)
    paths: dict[str, dict[str, float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        return sum(sum(counts.values()) for counts in self.reasons.values())

    def to_json(self) -> dict[str, object]:
        """For one line of JSON."""
        total: Counter[str] = sum(self.reasons.values(), Counter())
        return {
            "files": self.files,
            "seconds": round(self.seconds, 1),
            "reasons": dict(total.most_common()),
            "decoded": dict(self.decoded.most_common()),
            "paths": self.paths,
            "longest_wait_s": round(self.longest_wait, 1),
            "worker_peak_mib": round(self.worker_peak_mib),
            "parent_growth_mib": round(self.parent_growth_mib),
            "violations": self.violations,
        }

    def table(self) -> str:
        """Kinds down, reasons across."""
        columns = [reason for reason in REASONS if any(counts[reason] for counts in self.reasons.values())]
        lines = [f"{'kind':<16}" + "".join(f"{name:>{len(name) + 2}}" for name in columns)]
        for kind, counts in self.reasons.items():
            lines.append(f"{kind:<16}" + "".join(f"{counts[name] or '·':>{len(name) + 2}}" for name in columns))
        return "\n".join(lines)


def run(
    folder: Path,
    files: int,
    seed: int,
    *,
    limits: MediaLimits = LIMITS,
    workers: int = 2,
    heavy: bool = True,
    paths: Sequence[str] | None = None,
    every: bool = False,
) -> Summary:
    """Make a corpus in ``folder`` (empty) and put it through probing and decoding.

    Then through ``paths`` (all by default): each file through one of them in turn, or with ``every`` through each.
    """
    root, outside = folder / "root", folder / "outside"
    root.mkdir()
    outside.mkdir()
    with nobody_should_call() as (address, calls):
        cases = make(root, outside, files, seed, address, heavy=heavy)
        summary = _judged(root, cases, limits, workers)
        _decode(folder, root, cases, summary, limits, workers)
        _in_turn(folder / "paths", root, cases, summary, limits, paths, every)
    if calls:
        summary.violations.append(f"{len(calls)} connection(s) to a server that a file named")
    if summary.worker_peak_mib > limits.worker_mib:
        summary.violations.append(f"a worker took {summary.worker_peak_mib:.0f} MiB")
    return summary


@contextmanager
def nobody_should_call() -> Iterator[tuple[str, list[object]]]:
    """A local server's address, and the connections that were made to it nevertheless."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                connection.close()
                if caller[1] != own.get("port"):
                    calls.append(caller)

        own: dict[str, int] = {}
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        finally:
            # closing alone does not wake accept
            with socket.socket() as last:
                last.bind(("127.0.0.1", 0))
                own["port"] = last.getsockname()[1]
                last.connect(server.getsockname())
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join()


def _judged(root: Path, cases: Sequence[Case], limits: MediaLimits, workers: int) -> Summary:
    before, start = _peak_mib(resource.RUSAGE_SELF), time.monotonic()
    summary = Summary({}, 0.0, 0.0, 0.0, 0.0)
    last = start
    probes = probe_all([case.uri for case in cases], root, limits=limits, workers=workers)
    for case, probe in zip(cases, probes, strict=True):
        now = time.monotonic()
        summary.longest_wait = max(summary.longest_wait, now - last)
        if now - last > limits.wall_seconds + _GRACE:
            summary.violations.append(f"{case.uri!r}: nothing for {now - last:.0f} s")
        if probe.reason not in case.expected or probe.reason not in REASONS:
            summary.violations.append(f"{case.uri!r}: {probe.reason}, expected {sorted(case.expected)}")
        if probe.decode_ok != (probe.reason == "ok"):
            summary.violations.append(f"{case.uri!r}: decode_ok is {probe.decode_ok} with {probe.reason}")
        summary.reasons.setdefault(case.kind, Counter())[probe.reason] += 1
        if probe.decode_ok:
            summary.decoded[case.uri] = 1
        last = time.monotonic()
    summary.seconds = last - start
    summary.worker_peak_mib = _peak_mib(resource.RUSAGE_CHILDREN)
    summary.parent_growth_mib = _peak_mib(resource.RUSAGE_SELF) - before
    return summary


def _decode(
    folder: Path, root: Path, cases: Sequence[Case], summary: Summary, limits: MediaLimits, workers: int
) -> None:
    """What passed is decoded in full settings; failing is allowed, anything worse is not."""
    videos = [VideoInput(case.uri, root / case.uri) for case in cases if case.uri in summary.decoded]
    store = ClipStore(folder / "cache", _SPEC, limits)
    failures = store.try_fill(videos, workers)
    summary.decoded = Counter(ok=len(videos) - len(failures))
    summary.decoded.update(error.reason for error in failures.values())
    for index, error in failures.items():
        if error.reason not in REASONS:
            summary.violations.append(f"{videos[index].path!r}: {error.reason}")
    summary.worker_peak_mib = max(summary.worker_peak_mib, _peak_mib(resource.RUSAGE_CHILDREN))


def _in_turn(
    folder: Path,
    root: Path,
    cases: Sequence[Case],
    summary: Summary,
    limits: MediaLimits,
    wanted: Sequence[str] | None,
    every: bool,
) -> None:
    """Each decoding path over its share of the files; whatever is raised is a violation, and so is silence."""
    from tests.fuzz.paths import PATHS, Bench  # torch and transformers, which probing does without

    names = list(PATHS if wanted is None else wanted)
    for number, name in enumerate(names):
        share = cases if every else cases[number :: len(names)]
        videos = [VideoInput(case.uri, root / case.uri) for case in share]
        start = time.monotonic()
        try:
            said = PATHS[name](Bench(folder / name, limits), videos)
        except Exception as error:  # noqa: BLE001 - the finding
            summary.violations.append(f"path {name}: {type(error).__name__}: {error}")
            continue
        seconds = time.monotonic() - start
        for case in share:
            why = said.get(case.uri, "no answer")
            if why == "no answer" or (case.kind == "valid" and why not in ("", "left out")):
                summary.violations.append(f"path {name}: {case.uri!r}: {why}")
        if seconds > len(videos) * (limits.wall_seconds + _GRACE):
            summary.violations.append(f"path {name}: {seconds:.0f} s for {len(videos)} files")
        read = sum(not why for why in said.values())
        summary.paths[name] = {"files": len(videos), "read": read, "seconds": round(seconds, 1)}
    summary.worker_peak_mib = max(summary.worker_peak_mib, _peak_mib(resource.RUSAGE_CHILDREN))


def _peak_mib(who: int) -> float:
    # KiB on Linux, bytes on macOS
    return resource.getrusage(who).ru_maxrss / (1024 if os.uname().sysname == "Linux" else 1024**2)

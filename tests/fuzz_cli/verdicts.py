"""How a command's end is judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.fuzz_cli.conditions import SECRET
from tests.fuzz_cli.damage import Verdict
from tests.fuzz_cli.process import Outcome

#: coefvq.errors, click's usage error, Ctrl-C
CODES = frozenset((0, 1, 2, 3, 4, 5, 6, 7, 8, 130))
PEAK_MIB = 1536
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
_USAGE = re.compile(r"^(Usage: |\u256d|\u2502|\u2570|Try |Error: )")
_CAUGHT = re.compile(r"internal error|unexpected error|please report", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """One thing that may not be; ``kind`` is what the summary counts."""

    kind: str
    detail: str


def judge(outcome: Outcome, verdict: Verdict, words: Iterable[str], control: Outcome | None) -> list[Fault]:
    """Everything wrong with an outcome; ``words``: a refusal has to hold one of them."""
    found = _always(outcome)
    if found and found[0].kind in ("hang", "memory", "crash", "traceback"):
        return found
    if verdict == "refuse":
        found += _refusal(outcome, words)
    elif verdict in ("accept", "same") and outcome.code != 0:
        found.append(Fault("wrong_refusal", _last(outcome)))
    elif verdict == "same" and control is not None and _result(outcome) != _result(control):
        found.append(Fault("other_result", f"{outcome.stdout[:200]!r} instead of {control.stdout[:200]!r}"))
    elif outcome.code:
        found += _one_line(outcome)
    return found


def _always(outcome: Outcome) -> list[Fault]:
    """What no command may do, whatever its input: the worst alone, or all of the lesser ones."""
    worst = _worst(outcome)
    return [worst] if worst is not None else list(_lesser(outcome))


def _worst(outcome: Outcome) -> Fault | None:
    streams = (outcome.stderr, outcome.stdout)
    if outcome.hung:
        return Fault("hang", f"killed after {outcome.seconds:.0f} s")
    if outcome.peak_mib > PEAK_MIB:
        return Fault("memory", f"{outcome.peak_mib:.0f} MiB")
    if (outcome.code or 0) < 0:
        return Fault("crash", f"signal {-(outcome.code or 0)}")
    traced = next((text for text in streams if "Traceback (most recent call last)" in text), None)
    return None if traced is None else Fault("traceback", place_of(traced))


def _lesser(outcome: Outcome) -> Iterator[Fault]:
    if _CAUGHT.search(outcome.stderr):
        yield Fault("internal_error", _last(outcome))
    if outcome.code not in CODES:
        yield Fault("exit_code", f"{outcome.code}: not documented")
    for stream in (outcome.stderr, outcome.stdout):
        if (match := _CONTROL.search(stream.replace("\n", ""))) is not None:
            yield Fault("control_character", repr(match.string[max(0, match.start() - 40) : match.start() + 20]))
            break
    if SECRET in outcome.stderr + outcome.stdout:
        yield Fault("secret", _last(outcome))
    for event in outcome.events:
        yield Fault("network" if event.startswith("connect") else "outside", event)


def _refusal(outcome: Outcome, words: Iterable[str]) -> list[Fault]:
    if outcome.code == 0:
        return [Fault("silent_acceptance", f"rc 0: {(outcome.stdout.strip() or outcome.stderr.strip())[-160:]!r}")]
    found = _one_line(outcome)
    wanted = [word for word in words if word]
    flat = re.sub(r"[\s\u2502]+", " ", outcome.stderr)
    if wanted and not any(word in flat for word in wanted):
        found.append(Fault("unnamed", f"none of {wanted[:4]} in: {_last(outcome)}"))
    return found


def _one_line(outcome: Outcome) -> list[Fault]:
    """A failure's last line is its only error line; click's usage errors have a form of their own."""
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    if any(_USAGE.match(line) for line in lines):
        return []
    errors = [line for line in lines if line.startswith("error: ")]
    if outcome.code == 1 and not errors and outcome.stdout:
        return []  # `features verify` says it on stdout
    if len(errors) != 1 or not lines[-1].startswith("error: "):
        return [Fault("not_one_line", repr("\n".join(lines)[-300:]))]
    return []


def _last(outcome: Outcome) -> str:
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    return f"rc {outcome.code}: {(lines or [''])[-1][:300]}"


_VARYING = re.compile(
    r"coefvq-fuzz-\w+/slot\d+"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?"
    r"|\"?(seconds|last_use|at|made_at)\"?: [\d.]+"
    r"|\b[0-9a-f]{40}\b"  # a commit, which holds its time
)


def _result(outcome: Outcome) -> str:
    """Standard output without what a clock, or the case's own folder, brings into it."""
    return _VARYING.sub("", outcome.stdout)


_OURS = re.compile(r'File "[^"]*?((?:coefvq|flows|tasks)/[^"]+)", line (\d+), in (\S+)')
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Warning|Failure|Fault)\b")


def place_of(text: str) -> str:
    """Type of the last exception of a traceback, and the deepest line of ours."""
    lines, ours = text.splitlines(), _OURS.findall(text)
    last = next((line for line in reversed(lines) if _RAISED.match(line)), lines[-1])
    where = f"{ours[-1][0]}:{ours[-1][1]} {ours[-1][2]}" if ours else "?"
    return f"{last[:160]} @ {where}"

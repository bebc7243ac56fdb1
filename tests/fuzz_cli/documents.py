"""Mutations of YAML and JSON documents that know their structure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.fuzz_cli.damage import Mutation, Words, replace_bytes

Place = tuple[Any, Any]  # a container and the key or index in it
Change = Callable[[Random, Any], Words]
_ESCAPES = "\x1b[2J\x1b]0;owned\x07"
#: text that makes trouble in terminals, files and encoders
STRINGS = (
    "",
    " ",
    "a\nb",
    f"x{_ESCAPES}y",
    "\x00",
    "\ud800",
    "../../outside/secret",
    "/etc/passwd",
    "x" * 100_000,
    "NaN",
    "null",
    "[/red]",
    "{item}",
    "${paths.raw}",
    "\u202egpj.exe",
)
NUMBERS = (-1, 0, 10**30, -(10**30), 1e308, float("nan"), float("inf"), float("-inf"), 0.1, 2**63, True)


def load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def dump(path: Path, value: Any) -> None:
    if path.suffix == ".json":
        text = json.dumps(value, indent=2)
    else:
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    replace_bytes(path, text.encode("utf-8", "surrogatepass"))


def places(value: Any) -> Iterator[Place]:
    """Every entry of every mapping and list, outermost first."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield value, key
        yield from places(inner)


def keys(value: Any) -> list[Place]:
    return [(container, key) for container, key in places(value) if isinstance(container, dict)]


def changed(change: Change) -> Callable[[Random, Path], Words]:
    """A mutation from a change of the parsed document in place."""

    def apply(rng: Random, path: Path) -> Words:
        document = load(path)
        words = change(rng, document)
        dump(path, document)
        return words

    return apply


def rename(container: dict[Any, Any], old: Any, new: Any) -> None:
    entries = [(new if key == old else key, value) for key, value in container.items()]
    container.clear()
    container.update(entries)


def drop_key(rng: Random, document: Any) -> Words:
    container, key = rng.choice(keys(document))
    del container[key]
    return (str(key),)


def drop_top(rng: Random, document: Any) -> Words:
    key = rng.choice(list(document))
    del document[key]
    return (str(key),)


def unknown_key(rng: Random, document: Any) -> Words:
    document["zz_unknown"] = 1
    return ("zz_unknown",)


def near_key(rng: Random, document: Any) -> Words:
    """One letter of a fixed key doubled; keys that are names of the user's are left alone."""
    key = rng.choice([key for key in document if len(str(key)) > 3])
    at = rng.randrange(1, len(key))
    new = key[:at] + key[at] + key[at:]
    rename(document, key, new)
    return (new, key)


def wrong_type(rng: Random, document: Any) -> Words:
    container, key = rng.choice([(c, k) for c, k in keys(document) if c[k] is not None])
    container[key] = _other_type(rng, container[key])
    return (str(key),)


def wrong_type_top(rng: Random, document: Any) -> Words:
    key = rng.choice([key for key in document if document[key] is not None])
    document[key] = _other_type(rng, document[key])
    return (str(key),)


def _other_type(rng: Random, value: Any) -> Any:
    if isinstance(value, dict):
        return rng.choice(([1], "text", 5))
    if isinstance(value, list):
        return rng.choice(({"a": 1}, 5))
    if isinstance(value, str):
        return rng.choice(([1], {"a": 1}, 5))
    return rng.choice(([1], {"a": 1}, "text"))


def null(rng: Random, document: Any) -> Words:
    container, key = rng.choice(keys(document))
    container[key] = None
    return (str(key),)


def odd_number(rng: Random, document: Any) -> Words:
    numbers = [(c, k) for c, k in places(document) if isinstance(c[k], (int, float)) and not isinstance(c[k], bool)]
    if not numbers:
        return null(rng, document)
    container, key = rng.choice(numbers)
    container[key] = rng.choice(NUMBERS)
    return (str(key),)


def odd_string(rng: Random, document: Any) -> Words:
    strings = [(c, k) for c, k in places(document) if isinstance(c[k], str)]
    if not strings:
        return null(rng, document)
    container, key = rng.choice(strings)
    container[key] = rng.choice(STRINGS)
    return (str(key),)


def odd_key(rng: Random, document: Any) -> Words:
    document[rng.choice([text for text in STRINGS if text])] = 1
    return ()


def grown_list(rng: Random, document: Any) -> Words:
    lists = [(c, k) for c, k in places(document) if isinstance(c[k], list) and c[k]]
    if not lists:
        return odd_number(rng, document)
    container, key = rng.choice(lists)
    container[key] = rng.choice((container[key] * 2, [], container[key] * 1000, [container[key]]))
    return (str(key),)


def deep(rng: Random, path: Path) -> Words:
    depth = rng.choice((1_500, 100_000))
    text = "[" * depth + "]" * depth
    replace_bytes(path, (f'{{"a": {text}}}' if path.suffix == ".json" else f"a: {text}").encode())
    return ()


def duplicate_key(rng: Random, path: Path) -> Words:
    """One key twice, with another value the second time."""
    document = load(path)
    if path.suffix == ".json":
        key = rng.choice(list(document))
        inside = json.dumps(document, indent=2).rstrip()[:-1].rstrip()
        replace_bytes(path, f"{inside},\n  {json.dumps(key)}: {json.dumps(document[key])}\n}}\n".encode())
        return (str(key),)
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.choice([n for n, line in enumerate(lines) if _plain_entry(line)])
    lines.insert(at + 1, lines[at])
    replace_bytes(path, ("\n".join(lines) + "\n").encode())
    return (lines[at].split(":")[0].strip(" -"),)


def _plain_entry(line: str) -> bool:
    name, colon, value = line.partition(": ")
    return bool(colon and value.strip()) and name.strip().isidentifier() and value.strip()[0] not in "#{["


def _text(make: Callable[[str], bytes]) -> Callable[[Random, Path], Words]:
    def apply(rng: Random, path: Path) -> Words:
        replace_bytes(path, make(path.read_text(encoding="utf-8")))
        return ()

    return apply


def not_utf8(rng: Random, path: Path) -> Words:
    data = path.read_bytes()
    at = rng.randrange(len(data))
    replace_bytes(path, data[:at] + b"\xff\xfe\x80" + data[at:])
    return ()


def python_tag(rng: Random, path: Path) -> Words:
    replace_bytes(path, path.read_bytes() + b"\nzz_tag: !!python/object/apply:os.system ['touch owned']\n")
    return ()


def laughs(rng: Random, path: Path) -> Words:
    """Aliases that double at each level: a few hundred bytes, 2^40 strings."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    replace_bytes(path, ("\n".join(lines) + "\n").encode())
    return ()


def reordered(rng: Random, document: Any) -> Words:
    entries = list(document.items())
    rng.shuffle(entries)
    document.clear()
    document.update(entries)
    return ()


#: what every reader of a settings-like document has to notice
DOCUMENT = (
    Mutation("no_mapping", _text(lambda text: b"[1, 2]"), "refuse"),
    Mutation("only_number", _text(lambda text: b"7"), "refuse"),
    Mutation("only_null", _text(lambda text: b"null"), "refuse"),
    Mutation("blank", _text(lambda text: b" \n\n"), "refuse"),
    Mutation("unclosed", _text(lambda text: b'{"a": [1, 2'), "refuse"),
    Mutation("not_utf8", not_utf8, "refuse"),
    Mutation("nul_byte", _text(lambda text: text[:40].encode() + b"\x00" + text[40:].encode()), "refuse"),
    Mutation("utf16", _text(lambda text: text.encode("utf-16"))),
    Mutation("deep", deep, "refuse"),
    Mutation("duplicate_key", duplicate_key, "refuse"),
    Mutation("drop_key", changed(drop_key)),
    Mutation("drop_top", changed(drop_top)),
    Mutation("unknown_key", changed(unknown_key)),
    Mutation("near_key", changed(near_key)),
    Mutation("wrong_type", changed(wrong_type)),
    Mutation("wrong_type_top", changed(wrong_type_top)),
    Mutation("null", changed(null)),
    Mutation("odd_number", changed(odd_number)),
    Mutation("odd_string", changed(odd_string)),
    Mutation("odd_key", changed(odd_key)),
    Mutation("grown_list", changed(grown_list)),
    Mutation("reordered", changed(reordered), "same"),
    Mutation("spaced", _text(lambda text: f"\n\n{text}\n\n".encode()), "same"),
)
YAML = (
    Mutation("python_tag", python_tag, "refuse"),
    Mutation("laughs", laughs, "refuse"),
    Mutation("tabs", _text(lambda text: text.replace("  ", "\t").encode()), "refuse"),
    Mutation("commented", _text(lambda text: f"# a comment\n{text}# the end\n".encode()), "same"),
    Mutation("byte_order_mark", _text(lambda text: b"\xef\xbb\xbf" + text.encode()), "same"),
)

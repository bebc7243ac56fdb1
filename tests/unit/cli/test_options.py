"""Options of the command line: one that several commands share is defined once, in cli/options.py."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path


def test_no_option_is_defined_twice(repository: Path) -> None:
    modules = [*(repository / "coefvq" / "cli").glob("*.py"), *(repository / "flows").glob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in modules]
    subscripts = [ast.unparse(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    options = Counter(text for text in subscripts if text.startswith("Annotated[") and "typer.Option(" in text)
    assert len(options) > 50
    assert [text for text, times in options.items() if times > 1] == []

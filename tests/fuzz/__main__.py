"""``python -m tests.fuzz``: hostile files through probing and decoding; exit code 1 on any violation."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import run


def main() -> int:
    """Make, run, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="how many at least")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--light", action="store_true", help="without the bombs that take seconds each")
    parser.add_argument("--paths", help="decoding paths, comma-separated, or 'none'; default: all")
    parser.add_argument("--every", action="store_true", help="every file through every path, not through one in turn")
    parser.add_argument("--keep", type=Path, help="write the files to this new folder and leave them there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=arguments.keep is None)
        names = {None: None, "none": []}.get(arguments.paths, str(arguments.paths).split(","))
        summary = run(
            folder,
            arguments.files,
            arguments.seed,
            workers=arguments.workers,
            heavy=not arguments.light,
            paths=names,
            every=arguments.every,
        )
    sys.stdout.write(f"{summary.table()}\n{json.dumps({'seed': arguments.seed, **summary.to_json()})}\n")
    return 1 if summary.violations else 0


if __name__ == "__main__":
    sys.exit(main())

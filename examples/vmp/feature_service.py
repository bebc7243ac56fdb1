"""A feature service for `kind: thrift`: the rows of a JSON file, until Ctrl-C or SIGTERM.

    python examples/vmp/feature_service.py creators.json --port 9090

The file holds {"creators": {"ana": {"reputation": 0.9, "country": "DE", "verified": true}}}: store, key, field. It is
read again for each question.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from thriftpy2.rpc import make_server

from coefvq.vmp.features.thrift_store import protocol


class Handler:
    """Answers from the file."""

    def __init__(self, path: Path) -> None:
        self._path, self._thrift = path, protocol()

    def fetch(self, store: str, keys: list[str]) -> dict[str, dict[str, Any]]:
        """Rows of the keys that are there."""
        stores = json.loads(self._path.read_text(encoding="utf-8"))
        if store not in stores:
            raise self._thrift.Refused(reason=f"no store {store}")
        rows = stores[store]
        return {key: {field: self._value(value) for field, value in rows[key].items()} for key in keys if key in rows}

    def _value(self, value: bool | float | str) -> Any:
        kind = "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        return self._thrift.Value(**{kind: value})


def main() -> None:
    """Serve on the loopback address."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--port", type=int, default=9090)
    given = parser.parse_args()
    server = make_server(protocol().Features, Handler(given.rows), "127.0.0.1", given.port, client_timeout=None)
    server.daemon = True
    server.serve()


if __name__ == "__main__":
    main()

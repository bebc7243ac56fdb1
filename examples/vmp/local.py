"""The VMP on Kafka, PostgreSQL, Redis and a Thrift service, all started here without containers.

    python -m examples.vmp.local --workspace .demo --clips .demo/data/raw

Run it at the top of the repository, with a workspace that has an approved pair (`make demo`). PostgreSQL and Redis come
with pip packages of `coefvq[dev]`. Kafka is $KAFKA_BOOTSTRAP, or a $KAFKA_HOME with kafka.sh and Java 17, or the mock
broker of librdkafka in this process. `--source table` reads a table of PostgreSQL instead of a topic.
"""

from __future__ import annotations

import argparse
import csv
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests import kafka
from tests.feature_stores import redis_server, thrift_service
from tests.postgres import schema_of
from tests.postgres import server as postgres_server

HERE = Path(__file__).resolve().parent
CREATORS = {
    "ana": {"reputation": 0.9, "country": "DE", "verified": True},
    "bob": {"reputation": 0.1, "country": "FR", "verified": False},
}


@contextmanager
def servers(folder: Path, source: str) -> Iterator[dict[str, Any]]:
    """Start everything; the settings of vmp.yaml with the addresses of these servers."""
    settings: dict[str, Any] = yaml.safe_load((HERE / "vmp.yaml").read_text(encoding="utf-8"))
    with ExitStack() as stack:
        url = stack.enter_context(postgres_server())
        settings["store"]["url"] = schema_of(url, "vmp")
        _, cache = stack.enter_context(redis_server())
        _, port, rows = stack.enter_context(thrift_service(folder))
        rows.write_text(json.dumps({"creators": CREATORS}), encoding="utf-8")
        settings["features"]["stores"][0]["source"] |= {"url": cache, "behind": {"kind": "thrift", "port": port}}
        if source == "kafka":
            real = kafka.apache(folder) if kafka.is_there() else kafka.mock()
            address = stack.enter_context(real)
            settings["source"] |= {"brokers": [address], "topic": kafka.topic(address), "session_timeout": 6.0}
            settings["dead_letters"] = {"topic": kafka.topic(address)}
        else:
            settings["source"] = {
                "kind": "table", "url": schema_of(url, "app"), "table": "videos", "version": "source_version",
                "updated_at": "updated_at", "columns": {"title": "title", "creator_id": "creator_id"},
            }  # fmt: skip
            del settings["dead_letters"]
        yield settings


def rows_of(clips: Path) -> list[dict[str, str]]:
    """A row per clip; creators take turns."""
    with (clips / "metadata.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [
        {"video_id": Path(row["file_name"]).stem, "file_name": row["file_name"], "title": row.get("title") or "",
         "creator_id": ("ana", "bob")[number % 2], "source_version": "1"}
        for number, row in enumerate(found)
    ]  # fmt: skip


def fill_table(url: str, rows: Sequence[dict[str, str]]) -> None:
    """What an application would write."""
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE videos (video_id TEXT PRIMARY KEY, uri TEXT, title TEXT, creator_id TEXT, "
            "source_version BIGINT, updated_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())"
        )
        connection.cursor().executemany(
            "INSERT INTO videos (video_id, uri, title, creator_id, source_version) VALUES (%s, %s, %s, %s, %s)",
            [tuple(row.values()) for row in rows],
        )


def vmp(workspace: Path, *words: str | Path) -> str:
    """Run `coefvq vmp …` in the workspace, and show it."""
    print(f"$ coefvq vmp {' '.join(map(str, words))}", flush=True)
    command = [sys.executable, "-m", "coefvq", "vmp", *map(str, words)]
    done = subprocess.run(command, cwd=workspace, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode != 0:
        sys.exit(f"coefvq vmp {words[0]} ended with code {done.returncode}")
    return done.stdout


def main() -> None:
    """Start the servers, send the clips through, show what the index says, end the servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path(".demo"))
    parser.add_argument("--clips", type=Path, default=Path(".demo/data/raw"), help="folder with metadata.csv")
    parser.add_argument("--source", choices=["kafka", "table"], default="kafka")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the servers end too
    workspace, clips = given.workspace.resolve(), given.clips.resolve()
    with tempfile.TemporaryDirectory(prefix="coefvq-vmp-") as name:
        folder = Path(name)
        with servers(folder, given.source) as settings:
            settings["source"]["root"] = str(clips)
            config = folder / "vmp.yaml"
            config.write_text(yaml.safe_dump(settings), encoding="utf-8")
            (folder / "rules.yaml").write_text((HERE / "rules.yaml").read_text(encoding="utf-8"), encoding="utf-8")
            rows = rows_of(clips)
            if given.source == "table":
                fill_table(settings["source"]["url"], rows)
            else:
                table = folder / "videos.csv"
                with table.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)
            vmp(workspace, "check", "--config", config)
            if given.source == "kafka":
                vmp(workspace, "publish", table, "--config", config)
            vmp(workspace, "run", "--once", "--config", config, "--json")
            vmp(workspace, "status", "--state", folder / "state", "--json")
            vmp(workspace, "get", rows[1]["video_id"], "--state", folder / "state", "--json")
            vmp(workspace, "dlq", "list", "--config", config, "--json")


if __name__ == "__main__":
    main()

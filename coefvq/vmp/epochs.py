"""Epochs: which deployment of pairs and rules may write into the index, and whose verdicts still stand.

The index issues the epoch, because the index is what is protected. A deployment is what one decision record and one
rules file ask for. A newer one gets a higher epoch, also when it returns to an earlier pair. Where it withdraws a
pair, it sets a fence: the Sink refuses rows of every epoch below, inside its own transaction, so that a worker which
slept through the rollback cannot write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from coefvq.documents import parse_json
from coefvq.errors import DataError
from coefvq.vmp import feed
from coefvq.vmp.database import Connection, Database


class FencedError(DataError):
    """The deployment that judged these rows was withdrawn; nothing of the batch was stored."""


@dataclass(frozen=True)
class Order:
    """What is to be deployed: the pairs of all issues, the rules, and the record that says so.

    ``decision`` is the sequence number of the newest release decision that counts. ``bundles`` maps issue to bundle
    version, ``models`` issue to a hash of what scores are made with: both models and the preprocessing, not the
    policy. ``rules`` is the hash of the rules. ``withdrawn`` holds ``issue=version`` of pairs that were rolled back and
    not approved again.
    """

    decision: int
    bundles: Mapping[str, str]
    models: Mapping[str, str] = field(default_factory=dict)
    rules: str = ""
    withdrawn: frozenset[str] = frozenset()

    @property
    def bundle_text(self) -> str:
        """``icd=3-ab,ucc=9-cd``: the pairs in one text."""
        return ",".join(f"{issue}={version}" for issue, version in sorted(self.bundles.items()))

    @property
    def identity(self) -> tuple[int, str, str]:
        """What tells this order from another: decision, pairs and rules."""
        return self.decision, self.bundle_text, self.rules

    def withdraws(self, bundle_text: str) -> bool:
        """Whether a pair of that text was rolled back."""
        return not self.withdrawn.isdisjoint(bundle_text.split(","))


@dataclass(frozen=True)
class Issued:
    """One deployment as the index knows it."""

    epoch: int
    decision: int
    bundles: str
    models: dict[str, str]
    rules: str
    withdrawn: bool


def issue(database: Database, order: Order) -> int:
    """The epoch of ``order``: that of the head if it asks for the same, else one above, in one transaction.

    A pair that the record withdrew puts a fence before the new epoch, and all deployments with it are withdrawn. A
    running campaign begins again, for the rows it passed are below the new head.

    Raises:
        DataError: the index follows a newer decision record.
    """
    with database.transaction() as connection:
        head = _head(connection)
        if head is not None and asks_for(order, head):
            return head.epoch
        if head is not None and order.decision < head.decision:
            raise DataError(
                f"{database.place}: follows release decision {head.decision}, but the newest one of the tracking store "
                f"is {order.decision}; restore the store, or {database.discard} and run again"
            )
        epoch = 1 if head is None else head.epoch + 1
        fence = _withdraw(connection, order)
        connection.execute(
            "INSERT INTO deployments (epoch, decision, bundles, models, rules, fence) VALUES (?, ?, ?, ?, ?, ?)",
            (epoch, order.decision, order.bundle_text, json.dumps(dict(order.models), sort_keys=True), order.rules,
             fence),
        )  # fmt: skip
        connection.execute(
            "UPDATE campaigns SET epoch = ?, phase = 0, cursor = '' WHERE state IN ('running', 'paused')", (epoch,)
        )
        return epoch


def asks_for(order: Order, head: Issued) -> bool:
    """Whether ``order`` is what is deployed."""
    return (head.decision, head.bundles, head.rules) == order.identity


def _withdraw(connection: Connection, order: Order) -> bool:
    """Mark the deployments that hold a withdrawn pair; True if one was not marked before."""
    rows = connection.execute("SELECT epoch, bundles FROM deployments WHERE withdrawn = 0").fetchall()
    epochs = [epoch for epoch, bundles in rows if order.withdraws(bundles)]
    connection.executemany("UPDATE deployments SET withdrawn = 1 WHERE epoch = ?", [(epoch,) for epoch in epochs])
    feed.mark_epochs(connection, epochs)  # their rows read as withdrawn from now on
    return bool(epochs)


def _head(connection: Connection) -> Issued | None:
    row = connection.execute(
        "SELECT epoch, decision, bundles, models, rules, withdrawn FROM deployments ORDER BY epoch DESC LIMIT 1"
    ).fetchone()
    return None if row is None else _issued(row)


def _issued(row: tuple[int, int, str, str, str, int]) -> Issued:
    epoch, decision, bundles, models, rules, withdrawn = row
    # rows of an older schema do not say which models made them
    return Issued(epoch, decision, bundles, _models(models), rules, bool(withdrawn))


def _models(text: str) -> dict[str, str]:
    found = parse_json(text, "the index's deployments", "restore the index from a copy") if text else {}
    return {str(issue): str(digest) for issue, digest in found.items()} if isinstance(found, dict) else {}


def issued(database: Database) -> list[Issued]:
    """All deployments, oldest first."""
    columns = "epoch, decision, bundles, models, rules, withdrawn"
    return [_issued(row) for row in database.query(f"SELECT {columns} FROM deployments ORDER BY epoch")]  # noqa: S608


def check_fence(fence: int, epoch: int) -> None:
    """Refuse an epoch below the ``fence`` that stands inside the transaction that writes.

    Raises:
        FencedError: a pair of that epoch was withdrawn since.
    """
    if epoch < fence:
        raise FencedError(
            f"epoch {epoch} was withdrawn by a rollback (fence at epoch {fence}); nothing of the batch was stored: "
            "start `coefvq vmp run` again, it takes the pair that was returned to"
        )

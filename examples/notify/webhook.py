"""Tell a webhook when a retraining run waits for a person: a Prefect block and an automation.

    export PREFECT_API_URL=http://127.0.0.1:4200/api
    read -s COEFVQ_WEBHOOK && export COEFVQ_WEBHOOK      # the address is a secret: it stays out of the shell's history
    python examples/notify/webhook.py                    # again: changes what is there

The webhook gets JSON, {"text": "…"}, as Slack, Mattermost and Teams take it.
"""

from __future__ import annotations

import os
import sys
from typing import cast

from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from pydantic import SecretStr

NAME = "coefvq-approval-waits"


def main(address: str) -> None:
    """Save the block, then the automation that uses it."""
    block = CustomWebhookNotificationBlock(
        name=NAME,
        url="{{address}}",
        json_data={"text": "{{subject}}: {{body}}"},
        secrets={"address": SecretStr(address)},
    )
    block_id = block.save(NAME, overwrite=True)
    for automation in _saved():
        automation.delete()
    Automation(
        name=NAME,
        # a run is suspended only where it waits for a decision
        trigger=EventTrigger(
            expect={"prefect.flow-run.Suspended"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block_id,
                subject="A pair waits for approval",
                body="{{ flow_run.name }}: {{ flow_run.tags | join(', ') }}; {{ flow_run | ui_url }}",
            )
        ],
    ).create()
    print(f"{NAME}: saved")


def _saved() -> list[Automation]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.request("POST", "/automations/filter", json={"automations": {"name": {"any_": [NAME]}}}).json()
    return [cast(Automation, Automation.read(id=row["id"])) for row in found]


if __name__ == "__main__":
    if "COEFVQ_WEBHOOK" not in os.environ:
        sys.exit("error: COEFVQ_WEBHOOK: not set; export the address of the webhook")
    main(os.environ["COEFVQ_WEBHOOK"])

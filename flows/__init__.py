"""Prefect flows and the commands that need them."""

import os

from coefvq.telemetry import switch_off

switch_off()
# a flow without a server starts one for itself; on two busy cores Prefect's 20 s are too few
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")

"""Where work runs: processes with limits, pools of them, and Ray."""

"""Release of a pair: candidate, gate, registry, decisions, and the tracking of the runs behind them."""

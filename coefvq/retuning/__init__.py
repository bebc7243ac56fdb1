"""Re-tuning (paper, section 2.2.3): the champion's models, a new policy from present traffic and fresh labels.

The outcome is a proposal. It is served only after gate, registration and approval, like any other pair.
"""

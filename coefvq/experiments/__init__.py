"""The paper's tables on one's own data: the grid of trainings, and from their scores to rows, intervals and verdicts.

``grid.yaml`` says what is trained and which rows stand in a table. Everything here is pure: who trains, and where
the files lie, is the caller's business (``tasks/cells.py``, ``flows/experiments.py``).
"""

"""Frozen-tower cache: outputs of the parts that do not train, computed once per video, read in every epoch and run.

``keys``    what decides a part's output, and its hash
``store``   shards on disk: atomic, shared, bounded
``build``   decoding and towers side by side, filling the store
``cost``    whether it pays, before the run
``reader``  features of a video for datasets and collators
"""

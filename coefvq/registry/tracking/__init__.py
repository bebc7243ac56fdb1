"""The only package that imports MLflow: store, training runs, logged models, records.

Call ``configure`` once, then use the rest. Nothing is ever pickled: a model is logged as its folder of
safetensors and JSON files plus a small source file (``registry/served_model.py``).
"""

from coefvq.registry.tracking.artifacts import fetch_file, fetch_shared_file, log_files, log_shared_file
from coefvq.registry.tracking.comparisons import log_comparison
from coefvq.registry.tracking.logged_models import has_model, model_artifact, serve
from coefvq.registry.tracking.records import Record, append_record, close_record, read_records
from coefvq.registry.tracking.runs import TrainingRun, log_pair, training_run
from coefvq.registry.tracking.session import adopt, client, configure, or_none, place, store, store_errors

__all__ = [
    "Record",
    "TrainingRun",
    "adopt",
    "append_record",
    "client",
    "close_record",
    "configure",
    "fetch_file",
    "fetch_shared_file",
    "has_model",
    "log_comparison",
    "log_files",
    "log_pair",
    "log_shared_file",
    "model_artifact",
    "or_none",
    "place",
    "read_records",
    "serve",
    "store",
    "store_errors",
    "training_run",
]

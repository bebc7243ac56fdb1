"""The configured store: choose it, talk to it, turn its errors into ours.

MLflow keeps the current store in a process-wide global, so this module does too. Importing MLflow takes
about 2 s and waits until ``configure``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from coefvq.errors import RegistryError
from coefvq.redaction import redact
from coefvq.registry.store import Store, exclusive, locate
from coefvq.registry.tracking.local import prepare

T = TypeVar("T")

#: set before MLflow is imported, and only where the user has not decided otherwise
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # our commands print results for people and scripts; "Creating tables…" lines and progress bars hide them
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # requirements are stated explicitly; a uv.lock that happens to lie here must not replace them
    "MLFLOW_UV_AUTO_DETECT": "false",
    # a server that is down is reported after seconds; the default of 7 retries takes minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_active: tuple[Store, str] | None = None


def place(uri: str | None, *, root: Path | None = None, default: str | None = None) -> Store:
    """Where the store of these settings is, as ``configure`` takes it; nothing is opened.

    Raises:
        RegistryError: the URI is not usable.
    """
    base = root or Path(os.environ.get("COEFVQ_WORKSPACE") or Path.cwd())
    return locate(uri, default or os.environ.get("MLFLOW_TRACKING_URI"), base)


def configure(
    uri: str | None,
    experiment: str,
    *,
    root: Path | None = None,
    default: str | None = None,
    create: bool = True,
) -> Store:
    """Choose the store and the experiment; make both where they do not exist.

    Args:
        uri: None takes ``default``, else MLFLOW_TRACKING_URI, else ``mlflow.db`` in ``root``. A local
            database keeps its artifacts in ``mlartifacts/`` beside itself.
        experiment: where training runs and pairs are logged.
        root: the workspace, where a relative path starts; default: COEFVQ_WORKSPACE, which a run sets for
            the stages in its clone, else the working directory.
        create: off for commands that only read. Of a missing database every later use is refused.

    Raises:
        RegistryError: the URI is not usable, or the store does not answer.
    """
    global _active
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    chosen = place(uri, root=root, default=default)
    if create or chosen.exists:
        with quiet():
            import mlflow

            prepare(chosen)
            mlflow.set_tracking_uri(chosen.uri)
            # MLflow also writes the variable, which would outlive this choice and win over the next workspace's default
            _restore("MLFLOW_TRACKING_URI", environment)
            if find_experiment(experiment) is None and create:
                # two processes that make one experiment at once break each other
                with exclusive(chosen):
                    experiment_id(experiment, chosen)
    _active = (chosen, experiment)
    return chosen


def adopt() -> None:
    """Where nothing was configured, use the store that MLflow is set to: a model is loaded by MLflow's own call.

    Raises:
        RegistryError: it is no store that pairs can be in.
    """
    global _active
    if _active is None:
        import mlflow

        _active = (locate(mlflow.get_tracking_uri(), None, Path.cwd()), "")


def store() -> Store:
    """The configured store.

    Raises:
        RegistryError: nothing was configured.
    """
    return _configured()[0]


def experiment() -> str:
    """Name of the configured experiment.

    Raises:
        RegistryError: nothing was configured.
    """
    return _configured()[1]


def client() -> Any:
    """An ``MlflowClient`` of the configured store; wrap its calls in ``store_errors``.

    Raises:
        RegistryError: nothing was configured, or there is no store yet.
    """
    chosen = store()
    if not chosen.exists:
        raise RegistryError(
            f"{chosen.database}: no tracking store is there yet; register a candidate first (coefvq register --issue "
            "NAME), or pass --params of the workspace"
        )
    import mlflow

    return mlflow.MlflowClient()


def _configured() -> tuple[Store, str]:
    if _active is None:
        raise RegistryError("no tracking store is configured; call tracking.configure(uri, experiment) first")
    return _active


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def find_experiment(name: str) -> str | None:
    """Id of an experiment; None where it was never made.

    Raises:
        RegistryError: it was deleted, or the store does not answer.
    """
    import mlflow

    with store_errors():
        found = mlflow.MlflowClient().get_experiment_by_name(name)
    if found is None:
        return None
    if found.lifecycle_stage != "active":
        raise RegistryError(
            f"experiment {name} was deleted; restore it: mlflow experiments restore -x {found.experiment_id}"
        )
    return str(found.experiment_id)


def experiment_id(name: str, where: Store | None = None) -> str:
    """Id of an experiment, made on first use.

    Raises:
        RegistryError: it was deleted, or the store does not answer.
    """
    import mlflow

    found = find_experiment(name)
    if found is not None:
        return found
    root = (where or store()).artifact_root
    with store_errors():
        client = mlflow.MlflowClient()
        return str(client.create_experiment(name, artifact_location=(root / name).as_uri() if root else None))


@contextmanager
def store_errors(about: str = "") -> Iterator[None]:
    """Turn MLflow's exceptions into one-line RegistryErrors that name the store, and first what it is about."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        lines = redact(str(error)).strip().splitlines() or ["no message"]
        raise RegistryError(
            f"{about and about + ': '}tracking store {redact(mlflow.get_tracking_uri())}: {lines[0][:300]}; "
            "check that it is reachable and not damaged"
        ) from error


def or_none(call: Callable[[], T]) -> T | None:
    """The call's result, None where MLflow says that the thing does not exist."""
    from mlflow.exceptions import MlflowException

    with store_errors():
        try:
            return call()
        except MlflowException as error:
            if error.error_code in _MISSING:
                return None
            raise


@contextmanager
def quiet() -> Iterator[None]:
    """Silence three warnings of MLflow 3.17 that nobody here can act on.

    Two are about its own code: a loader option that SQLAlchemy deprecates, a type hint. One asks for an input
    example, for which it would load the model, weights included, on every log.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The ``noload`` loader strategy is deprecated")
        warnings.filterwarnings("ignore", message=r".*Any type hint is inferred as AnyType", category=UserWarning)
        warnings.filterwarnings("ignore", message=r".*An input example was not provided", category=UserWarning)
        yield

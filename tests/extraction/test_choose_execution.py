"""An extraction is executed as its cache, as a cache of the same images, or as measured."""

import json
from functools import partial

import numpy as np
import pytest

from featurecache.errors import FeaturecacheWarning
from featurecache.execution import EXACT, Execution
from featurecache.extraction import choose_execution as module
from featurecache.extraction.update import update_caches
from featurecache.store.merge import Shard
from featurecache.store.reader import read_cache
from tests.extraction.executed import Executed
from tests.extraction.stub_encoder import StubEncoder, make_dataset, write_images

FP32 = Execution("openvino", "fp32")
BF16 = Execution("torch", "bf16")
INT8 = Execution("openvino", "int8")


@pytest.fixture
def probed(monkeypatch):
    """Make every probe worthwhile and bf16 the fastest; return the batches that were measured."""
    calls = []

    def measure(encoders, pixels, *, batch_size, features):
        calls.append((pixels[:, :, 0, 0].astype(int).tolist(), batch_size))
        assert encoders[0].execution == EXACT
        rates = {EXACT: 10.0, BF16: 30.0, FP32: 20.0}
        measurements = [
            {
                "backend": one.backend,
                "precision": one.precision,
                "images_per_second": rates[one.execution],
                "min_cosine": 1.0,
            }
            for one in encoders
        ]
        return {"images": len(pixels), "measurements": measurements}

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(
        "featurecache.extraction.remembered_probe.library_versions",
        lambda *names: dict.fromkeys(names, "1.0"),
    )
    monkeypatch.setattr(module, "is_worthwhile", lambda *args, **options: True)
    return calls


@pytest.fixture
def choose(dataset, cache):
    def choose(load=Executed, data=None, **options):
        defaults = {
            "backend": "auto",
            "precision": "auto",
            "batch_size": 4,
            "limit": None,
            "shard": None,
            "image_timeout": 60.0,
        }
        given = defaults | options
        encoder = load(backend=given["backend"], precision=given["precision"])
        return module.choose_execution(load, encoder, data or dataset, cache, **given)

    return choose


def test_fastest_is_chosen_and_stored_in_the_cache(probed, choose, dataset, cache):
    encoder = choose()
    assert encoder.execution == BF16
    numbers = [row[2] for row in probed[0][0]]
    assert (numbers, probed[0][1]) == (list(range(10)), 4)
    (summary,) = update_caches(dataset, [encoder], cache_dir=cache)
    stored = read_cache(summary.path).header
    assert stored.probe == encoder.probe
    assert stored.encoder_spec["precision"] == "bf16"
    # Another extraction keeps it.
    (summary,) = update_caches(dataset, [choose()], cache_dir=cache)
    assert not summary.written
    assert read_cache(summary.path).header.probe == encoder.probe


def test_measurement_is_remembered(probed, choose):
    assert choose().execution == choose().execution == BF16
    assert len(probed) == 1
    # Also where measuring again would not be worthwhile.
    assert choose(limit=1).probe is not None


@pytest.mark.parametrize(
    "change",
    ["libraries", "processor", "threads", "batch_size", "encoder"],
)
def test_other_machine_library_or_encoder_is_measured_again(probed, choose, monkeypatch, change):
    choose()
    load, options = Executed, {}
    remembered = "featurecache.extraction.remembered_probe"
    if change == "libraries":
        monkeypatch.setattr(f"{remembered}.library_versions", lambda *names: {"torch": "9.9"})
    elif change == "processor":
        monkeypatch.setattr(f"{remembered}.describe_processor", lambda device: "another")
    elif change == "threads":
        monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    elif change == "batch_size":
        options = {"batch_size": 5}
    else:

        def load(**execution):
            encoder = Executed(**execution)
            encoder.checkpoint = "two"
            return encoder

    choose(load, **options)
    assert len(probed) == 2


@pytest.mark.parametrize("text", ["", "{", '{"subject": {}}', '{"subject": {}, "probe": {}}'])
def test_damaged_memory_is_measured_again_with_a_warning(probed, choose, user_cache, text):
    choose()
    (file,) = (user_cache / "probes").iterdir()
    content = json.loads(file.read_text())
    file.write_text(text)
    with pytest.warns(FeaturecacheWarning, match=r"cannot be read .*: measuring again"):
        assert choose().execution == BF16
    assert len(probed) == 2
    assert json.loads(file.read_text()) == content


def test_unwritable_memory_is_a_warning(probed, choose, user_cache):
    user_cache.mkdir(parents=True)
    (user_cache / "probes").write_text("a file")
    with pytest.warns(FeaturecacheWarning) as warned:
        assert choose().execution == BF16
    assert "cannot be remembered" in str(warned[-1].message)


def test_few_images_are_not_measured(choose, monkeypatch):
    asked = []

    def is_worthwhile(n_images, n_executions, **options):
        asked.append((n_images, n_executions, options))
        return False

    monkeypatch.setattr(module, "is_worthwhile", is_worthwhile)
    encoder = choose()
    assert (encoder.execution, encoder.probe) == (EXACT, None)
    assert encoder.execution_reason == "not measured: too few images"
    choose(limit=3)
    choose(shard=Shard(1, 2))
    assert [images for images, _, _ in asked] == [10, 3, 5]
    assert asked[0][1:] == (2, {"batch_size": 4, "device": "cpu"})


@pytest.mark.parametrize(
    ("options", "execution"),
    [
        ({"precision": "exact"}, EXACT),
        ({"precision": "fp32", "backend": "torch"}, EXACT),
        ({"precision": "bf16"}, BF16),
        ({"backend": "torch"}, BF16),
        ({"precision": "fp32"}, FP32),
        ({"backend": "openvino"}, FP32),
    ],
)
def test_arguments_limit_the_choice(probed, choose, options, execution):
    load = partial(Executed, ways=(EXACT, FP32, BF16, INT8))
    assert choose(load, **options).execution == execution


def test_encoder_that_offers_no_other_execution_is_not_measured(probed, choose):
    assert choose(lambda **options: StubEncoder()).execution == EXACT
    assert probed == []


def test_int8_has_to_be_asked_for(probed, choose):
    made = []
    choose(partial(Executed, ways=(EXACT, BF16, INT8), made=made))
    assert INT8 not in {one.execution for one in made}


@pytest.mark.parametrize("execution", [EXACT, BF16, INT8])
@pytest.mark.parametrize("finished", [True, False])
def test_cache_keeps_its_execution(choose, dataset, cache, probed, execution, finished):
    class StopError(Exception):
        pass

    def progress(done, total):
        if done == 8 and not finished:
            raise StopError

    started = Executed(backend=execution.backend, precision=execution.precision)
    try:
        update_caches(dataset, [started], cache_dir=cache, batch_size=2, progress=progress)
    except StopError:
        assert not (cache / "set/stub.h5").exists()
    chosen = choose()
    assert (chosen.execution, chosen.execution_reason) == (execution, "as its cache")
    assert choose(precision=execution.precision).execution == execution
    assert probed == []


@pytest.mark.parametrize("execution", [EXACT, BF16, INT8])
def test_renamed_data_set_is_executed_as_the_cache_of_its_images(
    choose, dataset, cache, probed, root, execution
):
    load = partial(Executed, ways=(EXACT, BF16, INT8))
    made = load(backend=execution.backend, precision=execution.precision)
    (summary,) = update_caches(dataset, [made], cache_dir=cache)
    renamed = make_dataset(root, [f"i{number:03d}" for number in range(10)], name="renamed")
    encoder = choose(load, renamed)
    assert encoder.execution == execution
    assert encoder.execution_reason == f"as {summary.path}, which holds embeddings of these images"
    (again,) = update_caches(renamed, [encoder], cache_dir=cache)
    assert (again.done, again.reused_by_content) == (0, {str(summary.path): 10})
    assert probed == []
    # One that was asked for is not overruled.
    assert choose(load, renamed, precision="exact").execution == EXACT


def test_cache_of_other_images_is_not_followed(choose, dataset, cache, probed, root):
    other = make_dataset(root, write_images(root, 4, start=50), name="other")
    update_caches(other, [Executed(precision="fp32")], cache_dir=cache)
    assert choose().execution == BF16
    assert len(probed) == 1


def test_unreadable_images_are_not_measured(choose, probed, root):
    dataset = make_dataset(root, write_images(root, 4))
    for name in dataset.images["path"].iloc[:3]:
        (root / name).write_bytes(b"no image")
    assert choose(data=dataset, batch_size=1).execution == BF16
    assert [len(pixels) for pixels, _ in probed] == [1]
    (root / dataset.images["path"].iloc[3]).write_bytes(b"no image")
    encoder = choose(data=dataset, batch_size=2)
    assert (encoder.execution, len(probed)) == (EXACT, 1)
    assert encoder.execution_reason == "not measured: no image can be read"


def test_hanging_and_crashing_images_are_not_measured(choose, probed, root, bad_decoder):
    dataset = make_dataset(root, write_images(root, 5))
    for name, spoil in zip(dataset.images["path"], bad_decoder, strict=False):
        spoil(root / name)
    choose(data=dataset, image_timeout=0.3)
    assert np.array(probed[0][0])[:, 2].tolist() == [3, 4]

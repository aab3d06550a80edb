"""What reaches a GPU, and how. There is none here: its calls are recorded."""

from contextlib import contextmanager
from threading import Thread, get_ident

import numpy as np
import pytest
import torch

from featurecache.encoders.inference import InferenceNetwork


@pytest.fixture
def gpu(monkeypatch):
    """Compute on the CPU what is meant for CUDA; return the calls, with their threads' streams."""
    calls = []
    streams = {}

    @contextmanager
    def stream(number):
        streams[get_ident()] = number
        yield
        del streams[get_ident()]

    def record(name, result):
        def call(*args, **options):
            calls.append((name, *args[1:], options, streams.get(get_ident())))
            return result(*args)

        return call

    numbers = iter(range(9))
    monkeypatch.setattr("torch.cuda.Stream", lambda: next(numbers))
    monkeypatch.setattr("torch.cuda.stream", stream)
    monkeypatch.setattr("torch.cuda.synchronize", record("synchronize", lambda: None))
    monkeypatch.setattr("torch.Tensor.pin_memory", record("pin_memory", lambda tensor: tensor))
    monkeypatch.setattr("torch.Tensor.to", record("to", lambda tensor, *_: tensor))
    monkeypatch.setattr("torch.nn.Module.to", record("load", lambda module, *_: module))
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", True)
    return calls


def test_batches_reach_a_gpu_from_pinned_memory_in_a_stream_of_their_thread(gpu):
    network = InferenceNetwork(device="cuda")
    values = np.ones((2, 3), dtype=np.float32)

    def embed() -> None:
        with network.inference(torch.nn.Identity) as module:
            assert torch.equal(module(network.to_device(values)), torch.from_numpy(values))

    for _ in range(2):
        thread = Thread(target=embed)
        thread.start()
        thread.join()
    copy = [("pin_memory", {}), ("to", "cuda", {"non_blocking": True})]
    load = [("load", "cuda", torch.float32, {}), ("synchronize", {})]
    assert gpu == [(*call, 0) for call in load + copy] + [(*call, 1) for call in copy]
    assert not torch.backends.cudnn.allow_tf32

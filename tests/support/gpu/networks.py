"""Steps that compare single forward and backward passes on the GPU with those on the CPU."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.models.dropout import dropout_mask
from engine.models.lstm import LSTMModel
from engine.models.numpy_lstm import NumpyLSTM
from engine.presets import get_preset
from engine.runtime.hardware import MachineMonitor
from engine.training.trainer import Trainer
from tests.support.gpu.options import StepOptions
from tests.support.lstm import seeded
from tests.support.models import make_tokenizer
from tests.support.training import NO_DROPOUT

VOCABULARY_SIZE = 2000
TIME, BATCH = 35, 20
WEIGHT_DROP = 0.5
MAX_BF16_ERROR = 0.1
"""Maximum relative error of a gradient in bf16."""


def describe_environment(options: StepOptions) -> list[str]:
    """Return versions, GPU and what NVML reports."""
    lines = [f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"]
    if options.is_gpu:
        properties = torch.cuda.get_device_properties(0)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        lines.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}")
    monitor = MachineMonitor()
    reading = monitor.read()
    monitor.close()
    lines += [f"NVML: {gpu}" for gpu in reading.gpus]
    assert reading.gpus or not options.is_gpu, "NVML reports no GPU; pip install 'lotr-tui[gpu]'"
    return lines


def check_cudnn(options: StepOptions) -> list[str]:
    """Compare outputs and gradients with the CPU, and weight drop with a network whose weights are dropped by hand."""
    lines = []
    torch.backends.cudnn.allow_tf32 = False
    for name, values in (("LSTM", {}), ("mogrifier", {"mogrifier_rounds": 5}), ("punctuation", {"punctuation": True})):
        differences = _differences_from_cpu(options.device, **values)
        worst, difference = max(differences.items(), key=lambda item: item[1])
        lines.append(f"{name}: largest relative difference from the CPU {difference:.1e}, in {worst}")
        assert difference < 1e-3, lines[-1]
    network = _make_network(options.device, weight_drop=WEIGHT_DROP)
    generator = torch.Generator(options.device).manual_seed(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dropped = network(_make_ids(options.device), network.initial_state(BATCH), generator)
        gradients = torch.autograd.grad(
            dropped.logits.square().mean(), [layer.weight_hh_l0 for layer in network.layers]
        )
    by_hand = _make_network(options.device)
    generator.manual_seed(1)
    with torch.no_grad():
        for layer, gradient in zip(by_hand.layers, gradients, strict=True):
            mask = dropout_mask(layer.weight_hh_l0, tuple(layer.weight_hh_l0.shape), WEIGHT_DROP, generator)
            layer.weight_hh_l0 *= mask
            assert not gradient[mask == 0].any(), "a dropped weight has a gradient"
            assert gradient[mask != 0].any(), "no weight has a gradient"
        expected = by_hand(_make_ids(options.device), by_hand.initial_state(BATCH))
    difference = (dropped.logits - expected.logits).abs().max() / expected.logits.abs().max()
    lines.append(f"weight drop: relative difference from weights dropped by hand {difference:.1e}")
    assert difference < 1e-4, lines[-1]
    messages = {str(item.message).split(".")[0] for item in caught}
    return [*lines, *(f"warning: {message}" for message in sorted(messages))]


def check_bf16(options: StepOptions) -> list[str]:
    """Compare a forward and backward pass in bf16 with float32: types, gradients and speed."""
    return [
        _compare_bf16(options, "LSTM"),
        _compare_bf16(options, "mogrifier", mogrifier_rounds=4),
    ]


def _compare_bf16(options: StepOptions, name: str, **values: int) -> str:
    size = 768 if options.is_gpu else 32
    network = _make_network(options.device, hidden_size=size, embedding_size=size, num_layers=1, **values)
    exact, rounded = _gradients(network), _gradients(network, torch.bfloat16)
    errors = {parameter: _relative_difference(exact[parameter], rounded[parameter]) for parameter in exact}
    worst, error = max(errors.items(), key=lambda item: item[1])
    seconds = _time(lambda: _gradients(network), options)
    speedup = seconds / _time(lambda: _gradients(network, torch.bfloat16), options)
    with torch.no_grad(), torch.autocast(options.device, torch.bfloat16):
        raw = network(_make_ids(options.device), network.initial_state(BATCH), torch.Generator(options.device)).raw
    text = (
        f"{name}: layer computes in {str(raw.dtype).removeprefix('torch.')}, largest gradient error {error:.1%} in "
        f"{worst}, {speedup:.2f} times the speed of fp32"
    )
    assert error < MAX_BF16_ERROR, text
    return text


def check_decoder(options: StepOptions) -> list[str]:
    """Compare the log-probabilities of the network on the device with those of the numpy decoder."""
    lines = []
    for name, values in (("LSTM", {}), ("mogrifier", {"mogrifier_rounds": 4}), ("punctuation", {"punctuation": True})):
        network = _make_network(options.device, **values)
        decoder = NumpyLSTM(network.config, make_tokenizer(VOCABULARY_SIZE), network.export_weights())
        ids = _make_ids("cpu")[:, :1].flatten().int().numpy()
        expected = decoder.score_sequence(ids)
        differences = []
        for allow_tf32 in (False, True):
            torch.backends.cudnn.allow_tf32 = allow_tf32
            differences.append(abs(network.score_sequence(ids) - expected).max())
        lines.append(f"{name}: largest difference {differences[0]:.1e} nats, with TF32 {differences[1]:.1e}")
        assert differences[0] < 1e-3, lines[-1]
        assert differences[1] < 2e-2, lines[-1]
    return lines


def measure_cuda_graph(options: StepOptions) -> list[str]:
    """Measure whether a CUDA graph would make the forward and backward pass of the default preset faster."""
    config = get_preset("default").with_values(subword_embeddings=False, device=options.device, precision="fp32")
    trainer = Trainer(config, load_dataset(config.data), torch.device(options.device))
    trainer.train_step()
    window, state = trainer.state.windows.next_window(), trainer.state.initial_recurrent_state()
    generator = trainer.state.dropout_generator

    def forward_backward() -> None:
        inputs = (window.inputs, window.targets, window.punctuation, window.speakers, None, state, generator)
        _, objective, _ = trainer.loss_module(*inputs)
        objective.backward()

    eager = _time(forward_backward, options)
    step = _time(trainer.train_step, options)
    text = f"forward and backward {1e3 * eager:.2f} ms, whole training step {1e3 * step:.2f} ms"
    if not options.is_gpu:
        return [f"{text}; a CPU has no graphs"]
    try:
        replay = _capture(forward_backward, generator)
    except RuntimeError as error:
        return [f"{text}; cannot be captured: {str(error).splitlines()[0]}"]
    graph = _time(replay, options)
    return [f"{text}; as a CUDA graph {1e3 * graph:.2f} ms, {eager / graph:.2f} times the speed"]


def _capture(function: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Return the replay of a CUDA graph of `function`, which draws from `generator`."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def _make_network(device: str, **values: Any) -> LSTMModel:
    """Return a network with the same weights on every device."""
    small = {"embedding_size": 200, "hidden_size": 300, "num_layers": 2, "subword_embeddings": False}
    config = ModelConfig(**(NO_DROPOUT | small | values))
    return LSTMModel(config, VOCABULARY_SIZE, seeded(0)).to(device)


def _make_ids(device: str) -> Tensor:
    return torch.randint(VOCABULARY_SIZE, (TIME, BATCH), generator=seeded(1)).to(device)


def _gradients(network: LSTMModel, autocast_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return the gradients of the mean cross-entropy by parameter, on the CPU."""
    device, ids = network.device.type, _make_ids(network.device.type)
    generator = torch.Generator(device).manual_seed(0)  # without one, the layers are not in training mode
    with torch.autocast(device, autocast_dtype, enabled=autocast_dtype is not None):
        logits = network(ids[:-1], network.initial_state(BATCH), generator).logits
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[1:].flatten())
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: gradient.cpu() for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _differences_from_cpu(device: str, **values: Any) -> dict[str, float]:
    """Return the relative differences of the gradients and of the outputs from those on the CPU."""
    networks = {name: _make_network(name, **values) for name in ("cpu", device)}
    expected, actual = (_gradients(networks[name]) for name in ("cpu", device))
    differences = {name: _relative_difference(expected[name], actual[name]) for name in expected}
    with torch.no_grad():
        outputs = [net(_make_ids(name), net.initial_state(BATCH)).logits.cpu() for name, net in networks.items()]
    return differences | {"outputs": _relative_difference(outputs[0], outputs[-1])}


def _relative_difference(expected: Tensor, actual: Tensor) -> float:
    return float((expected - actual).norm() / expected.norm().clamp(min=1e-12))


def _time(function: Callable[[], object], options: StepOptions) -> float:
    """Return the seconds of one call, as the mean over many."""
    calls = 50 if options.is_gpu else 3

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            function()
        if options.is_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    run(3)
    return run(calls) / calls

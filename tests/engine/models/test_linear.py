"""The oneDNN product against PyTorch's in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models import linear as linear_module
from engine.models.linear import HAS_ONEDNN_LINEAR, linear


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=2), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31)
)
def test_values_and_gradients_match_double_precision(
    positions: list[int], inputs: int, outputs: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = ([*positions, inputs], [outputs, inputs], [outputs])
    arguments = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    doubles = [value.detach().double().requires_grad_() for value in arguments]
    gradient = torch.randn([*positions, outputs], generator=generator)
    actual, expected = linear(*arguments), torch.nn.functional.linear(*doubles)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    actual.backward(gradient)
    expected.backward(gradient.double())
    for value, reference in zip(arguments, doubles, strict=True):
        torch.testing.assert_close(value.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)  # type: ignore[union-attr]


@pytest.mark.skipif(not HAS_ONEDNN_LINEAR, reason="this PyTorch has no oneDNN")
def test_only_float32_on_the_cpu_uses_onednn() -> None:
    inputs, weight, bias = torch.randn(3, 5, requires_grad=True), torch.randn(4, 5), torch.randn(4)
    assert "OneDNNLinear" in str(linear(inputs, weight, bias).grad_fn)
    double = linear(inputs.double(), weight.double(), bias.double())
    assert "OneDNNLinear" not in str(double.grad_fn)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(inputs, weight, bias).dtype == torch.bfloat16


def test_without_onednn_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, weight, bias = torch.randn(3, 5), torch.randn(4, 5), torch.randn(4)
    with_onednn = linear(inputs, weight, bias)
    monkeypatch.setattr(linear_module, "HAS_ONEDNN_LINEAR", False)
    torch.testing.assert_close(linear(inputs, weight, bias), with_onednn)

"""The product by oneDNN, held to PyTorch's own in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.models import linear as module
from engine.models.linear import linear


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=2), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31)
)
def test_values_and_gradients_are_those_of_double_precision(
    positions: list[int], inputs: int, outputs: int, seed: int
) -> None:
    chance = torch.Generator().manual_seed(seed)
    shapes = ([*positions, inputs], [outputs, inputs], [outputs])
    ours = [torch.randn(shape, generator=chance).requires_grad_() for shape in shapes]
    exact = [value.detach().double().requires_grad_() for value in ours]
    above = torch.randn([*positions, outputs], generator=chance)
    result, expected = linear(*ours), torch.nn.functional.linear(*exact)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    result.backward(above)
    expected.backward(above.double())
    for value, reference in zip(ours, exact, strict=True):
        torch.testing.assert_close(value.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)  # type: ignore[union-attr]


@pytest.mark.skipif(not module._ONEDNN, reason="this PyTorch has no oneDNN")
def test_float32_on_the_cpu_goes_by_onednn_and_nothing_else_does() -> None:
    vectors, weight, bias = torch.randn(3, 5, requires_grad=True), torch.randn(4, 5), torch.randn(4)
    assert "_Linear" in str(linear(vectors, weight, bias).grad_fn)
    double = linear(vectors.double(), weight.double(), bias.double())
    assert "_Linear" not in str(double.grad_fn)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(vectors, weight, bias).dtype == torch.bfloat16


def test_where_there_is_no_onednn_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, weight, bias = torch.randn(3, 5), torch.randn(4, 5), torch.randn(4)
    fast = linear(vectors, weight, bias)
    monkeypatch.setattr(module, "_ONEDNN", False)
    torch.testing.assert_close(linear(vectors, weight, bias), fast)

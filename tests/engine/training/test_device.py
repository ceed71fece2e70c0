"""Choice of the precision of a training."""

import pytest
import torch

from engine.presets import get_preset
from engine.training.device import choose_dtype

CPU = torch.device("cpu")
WITH_BF16, WITHOUT_BF16 = {"avx512_bf16": True, "amx_bf16": False}, {"avx512_bf16": False, "avx512": True}


@pytest.mark.parametrize(
    ("capabilities", "hidden_size", "precision", "dtype"),
    [
        (WITH_BF16, 400, "auto", torch.bfloat16),
        (WITH_BF16, 399, "auto", torch.float32),
        (WITHOUT_BF16, 2000, "auto", torch.float32),
        ({}, 2000, "auto", torch.float32),
        (WITH_BF16, 2000, "fp32", torch.float32),
        (WITHOUT_BF16, 8, "bf16", torch.bfloat16),
    ],
)
def test_auto_precision_is_bf16_for_large_layers_on_a_cpu_with_bf16(
    monkeypatch, capabilities, hidden_size, precision, dtype
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    config = get_preset("default").with_values(hidden_size=hidden_size, precision=precision)
    assert choose_dtype(config, CPU) == dtype


def test_auto_precision_is_fp32_with_a_pytorch_that_does_not_report_capabilities(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_dtype(get_preset("paper"), CPU) == torch.float32


def test_the_notebook_preset_uses_fp32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: WITH_BF16, raising=False)
    assert choose_dtype(get_preset("notebook"), CPU) == torch.float32

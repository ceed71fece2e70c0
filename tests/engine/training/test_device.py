"""In which precision a training computes."""

import pytest
import torch

from engine.config import preset
from engine.training.device import choose_dtype

CPU = torch.device("cpu")
HAS, HAS_NOT = {"avx512_bf16": True, "amx_bf16": False}, {"avx512_bf16": False, "avx512": True}


@pytest.mark.parametrize(
    ("processor", "hidden_size", "precision", "dtype"),
    [
        (HAS, 512, "auto", torch.bfloat16),
        (HAS, 511, "auto", torch.float32),
        (HAS_NOT, 2000, "auto", torch.float32),
        ({}, 2000, "auto", torch.float32),
        (HAS, 2000, "fp32", torch.float32),
        (HAS_NOT, 8, "bf16", torch.bfloat16),
    ],
)
def test_bf16_where_the_processor_has_it_and_the_layers_are_large_or_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, bool], hidden_size: int, precision: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    config = preset("default").with_values(hidden_size=hidden_size, precision=precision)
    assert choose_dtype(config, CPU) == dtype


def test_a_pytorch_that_does_not_tell_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_dtype(preset("paper"), CPU) == torch.float32


def test_the_notebook_computes_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: HAS, raising=False)
    assert choose_dtype(preset("notebook"), CPU) == torch.float32

"""Imports of large libraries in a thread."""

import gc
import sys

from engine.runtime.background_import import SWITCH_INTERVAL, pause_garbage_collection, preload_torch, share_interpreter


def test_objects_created_meanwhile_are_never_searched_for_garbage() -> None:
    assert gc.isenabled()
    try:
        with pause_garbage_collection():
            assert not gc.isenabled()
            created = [[number] for number in range(1000)]
        assert gc.isenabled()
        tracked = {id(item) for item in gc.get_objects()}
        assert not any(id(item) in tracked for item in created)
    finally:
        gc.unfreeze()


def test_threads_change_places_often_and_torch_still_works() -> None:
    before = sys.getswitchinterval()
    try:
        share_interpreter()
        assert sys.getswitchinterval() == SWITCH_INTERVAL
        preload_torch()
        import torch

        assert torch.ones(2).sum() == 2
    finally:
        sys.setswitchinterval(before)

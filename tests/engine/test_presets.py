"""Presets."""

import pytest

from engine.config import Config
from engine.errors import ConfigError
from engine.presets import PRESETS, get_preset


def test_documented_presets_exist():
    assert {"default", "tiny", "notebook"} <= PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_has_its_own_name(name):
    assert get_preset(name).preset == name


def test_error_for_an_unknown_preset_names_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r"'defualt'; did you mean default\? The presets: .*notebook"):
        get_preset("defualt")


def test_error_without_a_near_preset_names_all():
    with pytest.raises(ConfigError, match=r"'zzz'\. The presets: .*default"):
        get_preset("zzz")


def test_notebook_preset_has_the_settings_of_the_notebook():
    config = get_preset("notebook")
    assert config.data.mode == "stream"
    assert config.model.layer_sizes() == [(512, 512), (512, 512)]
    assert not config.model.tie_weights
    assert config.model.output_dropout == 0.65
    assert (config.training.batch_size, config.training.bptt) == (64, 50)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_round_trip(name):
    assert Config.from_json(get_preset(name).to_json(), "here") == get_preset(name)

"""Configuration: settings, JSON, presets, and commands that change a running training."""

import dataclasses
import json
import math
import re
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config, DataConfig, ModelConfig, TrainingConfig
from engine.control import ControlCommand
from engine.errors import ConfigError, InvalidInputError
from engine.presets import PRESETS

SECTIONS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}
FIELDS = [
    (section, field.name, get_type_hints(kind)[field.name], field.metadata["meta"].ge, field.metadata["meta"].le)
    for section, kind in SECTIONS.items()
    for field in dataclasses.fields(kind)
]
NUMBERS = [field for field in FIELDS if field[2] in (int, float)]


def value_of(config, name):
    return next(getattr(getattr(config, section), name) for section, field, *_ in FIELDS if field == name)


def refusal(*assignments):
    with pytest.raises(ConfigError) as caught:
        Config().with_values(*assignments)
    return str(caught.value)


def values_for(kind, low, high):
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is bool:
        return st.booleans()
    if kind is str:
        return st.text()
    if kind is int:
        return st.integers(int(low), int(high))
    return st.floats(low, high)


WRONG_TYPES = (
    st.none() | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.booleans(), max_size=1)
)


def wrong_values_for(kind, low, high):
    if get_origin(kind) is Literal:
        return WRONG_TYPES | st.integers() | st.booleans() | st.text().filter(lambda text: text not in get_args(kind))
    if kind is bool:
        return WRONG_TYPES | st.integers() | st.floats() | st.text()
    if kind is str:
        return WRONG_TYPES | st.integers() | st.floats() | st.booleans()
    beyond = [low - 1, -math.inf, math.inf, math.nan, *([high + 1] if math.isfinite(high) else [])]
    wrong = WRONG_TYPES | st.booleans() | st.text() | st.sampled_from(beyond) | st.integers(max_value=int(low) - 1)
    wrong |= st.floats().filter(lambda value: kind is int or not low <= value <= high)
    return wrong if math.isinf(high) else wrong | st.integers(min_value=int(high) + 1)


def section_factory(config_class):
    """Return a function that creates a section; it resolves the only conflicts between two settings."""

    def make(**values):
        if values.get("softmax_samples"):
            values |= {"label_smoothing": 0.0, "teachers": ""}
        return config_class(**values)

    return make


CONFIGS = st.builds(
    Config,
    st.text(),
    *(
        st.builds(
            section_factory(config_class),
            **{name: values_for(*rest) for field_section, name, *rest in FIELDS if field_section == section},
        )
        for section, config_class in SECTIONS.items()
    ),
)


NO_EPOCHS = ("", "x", "2.5", "nan", "true")
NO_RATES = ("", "1,5", "true", "nan", "-inf", "Infinity", "1e999")


class TestSettings:
    def test_overrides_set_values_and_the_last_one_wins(self):
        overrides = ["epochs=3", "lr=0.5", "epochs=1e3", "tie_weights=0", "sample_prompt=a = b"]
        values = {"lr": 0.5, "epochs": 1000, "tie_weights": False, "sample_prompt": "a = b"}
        assert Config().with_values(*overrides) == Config().with_values(**values)

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("lrr=1", "unknown setting 'lrr'; did you mean lr?"),
            ("qqqqqq=1", "unknown setting 'qqqqqq'."),
            ("epochs", "'epochs' is not of the form key=value"),
            *((f"epochs={text}", f"epochs={text} is not a whole number from 1 to 100000") for text in NO_EPOCHS),
            *((f"lr={text}", f"lr={text} is not a number from 1e-09 to 1000") for text in NO_RATES),
            *((f"tie_weights={text}", f"tie_weights={text} is not true or false") for text in ("", "maybe", "2")),
            ("mode=lines", "mode=lines is not one of line, stream, dialogue; did you mean line?"),
        ],
    )
    def test_an_invalid_override_is_refused_with_the_remedy(self, assignment, message):
        assert message in refusal(assignment)

    @pytest.mark.parametrize(("name", "kind", "low", "high"), [field[1:] for field in NUMBERS])
    def test_limits_of_a_range_are_accepted_and_nothing_beyond(self, name, kind, low, high):
        for end in (low, high):
            assert value_of(Config().with_values(f"{name}={end}"), name) == end
        below, above = low - 1, high + 1
        if kind is float:
            below, above = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
        for value in (below, above):
            assert refusal(f"{name}={value}").startswith(f"{name}={value} is not a")

    @given(st.sampled_from(FIELDS), st.data())
    def test_every_valid_value_can_be_set_from_text(self, field, data):
        _, name, kind, low, high = field
        value = data.draw(values_for(kind, low, high))
        actual = value_of(Config().with_values(f" {name} = {value} "), name)
        assert actual == (value.strip() if kind is str else value)
        assert type(actual) is type(value)

    @given(st.sampled_from(FIELDS), st.data())
    def test_every_wrong_value_is_refused_in_one_line_that_names_the_setting(self, field, data):
        section, name, *rest = field
        value = data.draw(wrong_values_for(*rest))
        values = json.loads(Config().to_json())
        values[section][name] = value

        def set_value():
            return Config().with_values(**{name: value})

        def read_json():
            return Config.from_json(json.dumps(values), "here")

        for create in (set_value, read_json):
            with pytest.raises(ConfigError, match=re.escape(name)):
                create()


class TestJson:
    @settings(max_examples=50)
    @given(CONFIGS)
    def test_configuration_survives_a_round_trip(self, config):
        text = config.to_json()
        assert Config.from_json(text, "here") == config
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def test_a_missing_setting_gets_its_default_and_a_path_that_is_not_utf8_is_kept(self):
        config = Config().with_values(corpus="/tmp/caf\udce9.csv")
        values = json.loads(config.to_json())
        del values["training"]["epochs"]
        assert Config.from_json(json.dumps(values), "here") == config

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", "[]", "3", "{}", '{"preset": "tiny"}'])
    def test_error_for_an_invalid_configuration_names_the_file(self, text):
        with pytest.raises(ConfigError, match=r"run/config\.json"):
            Config.from_json(text, "run/config.json")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_found_by_its_name_and_survives_a_round_trip(name):
    config = PRESETS[name]
    assert config.preset == name
    with pytest.raises(ConfigError, match=rf"'{name}x'; did you mean .*\? The presets: .*notebook"):
        PRESETS[name + "x"]
    assert Config.from_json(config.to_json(), "here") == config


def test_presets_have_the_layers_of_the_notebook_and_of_awd_lstm():
    config = PRESETS["notebook"]
    assert config.data.mode == "stream"
    assert config.model.layer_sizes() == [(512, 512), (512, 512)]
    tied = ModelConfig(embedding_size=400, hidden_size=1150, tie_weights=True, num_layers=3)
    assert tied.layer_sizes() == [(400, 1150), (1150, 1150), (1150, 400)]
    assert not config.model.tie_weights
    assert config.model.output_dropout == 0.65
    assert (config.training.batch_size, config.training.bptt) == (64, 50)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("stpo", ""), ("stop", 7), ("lr", "0"), ("lr", "1.5"), ("lr", "nan"), ("lr", "half")),
        *(("prompt", text) for text in ("", "a\nb", "x" * 201, "\x1b[31m")),
    ],
)
def test_invalid_commands_to_a_training_are_refused(kind, value):
    with pytest.raises(InvalidInputError):
        ControlCommand(kind, value)

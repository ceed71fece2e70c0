"""Configuration: settings and JSON."""

import dataclasses
import json
import math
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import Config, DataConfig, ModelConfig, TrainingConfig, describe_settings
from engine.errors import ConfigError

SECTIONS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}
FIELDS = [
    (
        section,
        field.name,
        get_type_hints(config_class)[field.name],
        field.metadata["meta"].ge,
        field.metadata["meta"].le,
    )
    for section, config_class in SECTIONS.items()
    for field in dataclasses.fields(config_class)
]
NUMBERS = [field for field in FIELDS if field[2] in (int, float)]


def value_of(config, name):
    return next(getattr(getattr(config, section), name) for section, field, *_ in FIELDS if field == name)


def refusal(*assignments):
    with pytest.raises(ConfigError) as caught:
        Config().with_overrides(list(assignments))
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
    """Return a strategy for parsed JSON values that the field does not accept."""
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


class TestSettings:
    def test_setting_names_are_unique_over_the_sections(self):
        assert len(describe_settings()) == len(FIELDS)

    def test_each_setting_has_a_description(self):
        assert all(len(description) > 10 for _, description in describe_settings().values())

    @pytest.mark.parametrize(
        ("assignment", "expected"),
        [
            ("epochs=3", 3),
            ("epochs=1e3", 1000),
            (" epochs = 3 ", 3),
            ("lr=1e-2", 0.01),
            ("lr=1", 1),
            ("tie_weights=false", False),
            ("tie_weights=Yes", True),
            ("tie_weights=0", False),
            ("mode=stream", "stream"),
            ("sample_prompt=a = b", "a = b"),
            ("sample_prompt=", ""),
            ("seed=9223372036854775807", 2**63 - 1),
        ],
    )
    def test_override_sets_the_value(self, assignment, expected):
        config = Config().with_overrides([assignment])
        name = assignment.partition("=")[0].strip()
        assert value_of(config, name) == expected
        assert Config() == Config().with_overrides([])

    def test_the_last_override_wins_and_others_are_kept(self):
        config = Config().with_overrides(["epochs=3", "lr=0.5", "epochs=4"])
        assert config == Config().with_values(lr=0.5, epochs=4)

    def test_error_for_an_unknown_setting_names_the_nearest(self):
        assert "unknown setting 'lrr'; did you mean lr?" in refusal("lrr=1")
        assert "did you mean batch_size?" in refusal("batchsize=3")
        assert "unknown setting 'qqqqqq'." in refusal("qqqqqq=1")
        assert "unknown setting ''" in refusal("=1")

    def test_an_override_without_equals_sign_is_refused(self):
        assert "'epochs' is not of the form key=value" in refusal("epochs")

    @pytest.mark.parametrize("text", ["", "x", "2.5", "nan", "true", "0", "100001"])
    def test_anything_but_a_whole_number_in_range_is_refused(self, text):
        assert refusal(f"epochs={text}") == f"epochs={text} is not a whole number from 1 to 100000"

    @pytest.mark.parametrize("text", ["", "x", "1,5", "true"])
    def test_anything_but_a_number_is_refused(self, text):
        assert refusal(f"lr={text}") == f"lr={text} is not a number from 1e-09 to 1000"

    @pytest.mark.parametrize("text", ["", "maybe", "2"])
    def test_anything_but_true_or_false_is_refused(self, text):
        assert refusal(f"tie_weights={text}") == f"tie_weights={text} is not true or false"

    def test_error_for_a_choice_names_all_and_the_nearest(self):
        assert "mode=lines is not one of line, stream, dialogue; did you mean line?" in refusal("mode=lines")

    @pytest.mark.parametrize(("name", "kind", "low", "high"), [field[1:] for field in NUMBERS])
    def test_limits_of_a_range_are_accepted_and_nothing_beyond(self, name, kind, low, high):
        for end in (low, high):
            assert value_of(Config().with_overrides([f"{name}={end}"]), name) == end
        below, above = low - 1, high + 1
        if kind is float:
            below, above = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
        for value in (below, above):
            assert refusal(f"{name}={value}").startswith(f"{name}={value} is not a")

    @pytest.mark.parametrize("name", [name for _, name, kind, *_ in NUMBERS if kind is float])
    @pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-inf", "Infinity", "1e999"])
    def test_infinity_and_nan_are_refused(self, name, text):
        assert refusal(f"{name}={text}").startswith(f"{name}={text} is not a number")

    @given(st.sampled_from(FIELDS), st.text())
    def test_any_text_is_parsed_to_a_value_in_range_or_refused(self, field, text):
        _, name, kind, low, high = field
        try:
            value = value_of(Config().with_overrides([f"{name}={text}"]), name)
        except ConfigError:
            return
        if kind in (int, float):
            assert low <= value <= high

    @given(st.sampled_from(FIELDS), st.data())
    def test_every_valid_value_can_be_set_from_text(self, field, data):
        _, name, kind, low, high = field
        value = data.draw(values_for(kind, low, high))
        actual = value_of(Config().with_overrides([f" {name} = {value} "]), name)
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
            with pytest.raises(ConfigError) as caught:
                create()
            assert name in str(caught.value)
            assert str(caught.value).isprintable()

    @pytest.mark.parametrize("value", [None, [], "3", 3.0, True])
    def test_values_of_another_type_are_refused(self, value):
        with pytest.raises(ConfigError, match="epochs="):
            Config().with_values(epochs=value)


class TestJson:
    def test_path_that_is_not_utf8_survives_a_round_trip(self):
        config = Config().with_values(corpus="/tmp/caf\udce9.csv")
        assert Config.from_json(config.to_json(), "config.json") == config

    def test_sample_prompt_that_is_not_utf8_is_refused(self):
        with pytest.raises(ConfigError, match=r"sample_prompt=.* is not UTF-8 text"):
            Config().with_values(sample_prompt="caf\udce9")

    @settings(max_examples=50)
    @given(CONFIGS)
    def test_configuration_survives_a_round_trip(self, config):
        text = config.to_json()
        assert Config.from_json(text, "here") == config
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def test_a_missing_setting_gets_its_default(self):
        values = json.loads(Config().to_json())
        del values["training"]["epochs"]
        assert Config.from_json(json.dumps(values), "here") == Config()

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", "[]", "3", "{}", '{"preset": "tiny"}'])
    def test_error_for_an_invalid_configuration_names_the_file(self, text):
        with pytest.raises(ConfigError, match=r"run/config\.json"):
            Config.from_json(text, "run/config.json")

    @pytest.mark.parametrize(
        ("section", "name", "value"),
        [
            ("training", "epochz", 3),
            ("training", "epochs", -1),
            ("training", "epochs", "3"),
            ("training", "lr", math.nan),
            ("training", "lr", math.inf),
            ("model", "embedding_size", 10**9),
            ("model", "num_layers", True),
            ("data", "mode", ["line"]),
            ("data", "corpus", None),
        ],
    )
    def test_damaged_values_are_refused(self, section, name, value):
        values = json.loads(Config().to_json())
        values[section][name] = value
        with pytest.raises(ConfigError):
            Config.from_json(json.dumps(values), "here")

    @given(
        st.sampled_from(["data", "model", "training", "preset"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(describe_settings())), inner)
            ),
            max_leaves=8,
        ),
    )
    def test_any_json_is_a_configuration_or_refused(self, section, value):
        values = {**json.loads(Config().to_json()), section: value}
        try:
            config = Config.from_json(json.dumps(values), "here")
        except ConfigError:
            return
        assert Config.from_json(config.to_json(), "here") == config


@pytest.mark.parametrize(
    ("tie_weights", "num_layers", "sizes"),
    [
        (True, 1, [(400, 400)]),
        (True, 3, [(400, 1150), (1150, 1150), (1150, 400)]),
        (False, 1, [(400, 1150)]),
        (False, 2, [(400, 1150), (1150, 1150)]),
    ],
)
def test_the_last_layer_has_the_embedding_size_if_weights_are_tied(tie_weights, num_layers, sizes):
    config = ModelConfig(embedding_size=400, hidden_size=1150, tie_weights=tie_weights, num_layers=num_layers)
    assert config.layer_sizes() == sizes


def test_configurations_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.epochs = 3

import dataclasses
import json
import math
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import PRESETS, Config, DataConfig, ModelConfig, TrainingConfig, preset
from engine.config import settings as all_settings
from engine.errors import ConfigError

PARTS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}
FIELDS = [
    (part, field.name, get_type_hints(kind)[field.name], field.metadata["low"], field.metadata["high"])
    for part, kind in PARTS.items()
    for field in dataclasses.fields(kind)
]
NUMBERS = [field for field in FIELDS if field[2] in (int, float)]


def value_of(config, name):
    return next(getattr(getattr(config, part), name) for part, field, *_ in FIELDS if field == name)


def refusal(*assignments):
    with pytest.raises(ConfigError) as caught:
        Config().with_settings(list(assignments))
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


JUNK = st.none() | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.booleans(), max_size=1)


def wrong_for(kind, low, high):
    """Values as JSON gives them that the field cannot have."""
    if get_origin(kind) is Literal:
        return JUNK | st.integers() | st.booleans() | st.text().filter(lambda text: text not in get_args(kind))
    if kind is bool:
        return JUNK | st.integers() | st.floats() | st.text()
    if kind is str:
        return JUNK | st.integers() | st.floats() | st.booleans()
    beyond = [low - 1, -math.inf, math.inf, math.nan, *([high + 1] if math.isfinite(high) else [])]
    wrong = JUNK | st.booleans() | st.text() | st.sampled_from(beyond) | st.integers(max_value=int(low) - 1)
    wrong |= st.floats().filter(lambda value: kind is int or not low <= value <= high)
    return wrong if math.isinf(high) else wrong | st.integers(min_value=int(high) + 1)


def made(kind):
    """Makes a part of the configuration of any values that may stand together."""

    def make(**values):
        if values.get("softmax_samples"):
            values["smoothing"] = 0.0
        return kind(**values)

    return make


CONFIGS = st.builds(
    Config,
    st.text(),
    *(
        st.builds(made(kind), **{name: values_for(*rest) for part, name, *rest in FIELDS if part == wanted})
        for wanted, kind in PARTS.items()
    ),
)


class TestPresets:
    def test_those_promised_are_there(self):
        assert {"default", "tiny", "notebook"} <= PRESETS.keys()

    @pytest.mark.parametrize("name", PRESETS)
    def test_each_knows_its_name(self, name):
        assert preset(name).preset == name

    def test_an_unknown_one_names_the_nearest_and_all(self):
        with pytest.raises(ConfigError, match=r"'defualt'; did you mean default\? The presets: .*notebook"):
            preset("defualt")

    def test_one_like_none_names_all(self):
        with pytest.raises(ConfigError, match=r"'zzz'\. The presets: .*default"):
            preset("zzz")

    def test_the_notebooks_own_settings(self):
        config = preset("notebook")
        assert config.data.mode == "stream"
        assert config.model.layer_sizes() == [(512, 512), (512, 512)]
        assert not config.model.tied
        assert config.model.dropout_output == 0.65
        assert (config.training.batch_size, config.training.window) == (64, 50)


class TestSettings:
    def test_names_are_unique_over_the_parts(self):
        assert len(all_settings()) == len(FIELDS)

    def test_each_has_a_meaning(self):
        assert all(len(meaning) > 10 for _, meaning in all_settings().values())

    @pytest.mark.parametrize(
        ("assignment", "expected"),
        [
            ("epochs=3", 3),
            (" epochs = 3 ", 3),
            ("lr=1e-2", 0.01),
            ("lr=1", 1),
            ("tied=false", False),
            ("tied=Yes", True),
            ("tied=0", False),
            ("mode=stream", "stream"),
            ("sample_prompt=a = b", "a = b"),
            ("sample_prompt=", ""),
            ("seed=9223372036854775807", 2**63 - 1),
        ],
    )
    def test_set(self, assignment, expected):
        config = Config().with_settings([assignment])
        name = assignment.partition("=")[0].strip()
        assert value_of(config, name) == expected
        assert Config() == Config().with_settings([])

    def test_the_last_one_holds_and_others_stay(self):
        config = Config().with_settings(["epochs=3", "lr=0.5", "epochs=4"])
        assert config == Config().with_values(lr=0.5, epochs=4)

    def test_an_unknown_name_names_the_nearest(self):
        assert "unknown setting 'lrr'; did you mean lr?" in refusal("lrr=1")
        assert "did you mean batch_size?" in refusal("batchsize=3")
        assert "unknown setting 'qqqqqq'." in refusal("qqqqqq=1")
        assert "unknown setting ''" in refusal("=1")

    def test_not_an_assignment(self):
        assert "'epochs' is not of the form key=value" in refusal("epochs")

    @pytest.mark.parametrize("text", ["", "x", "2.5", "1e3", "nan", "true"])
    def test_no_whole_number(self, text):
        assert refusal(f"epochs={text}") == f"epochs={text} is not a whole number"

    @pytest.mark.parametrize("text", ["", "x", "1,5", "true"])
    def test_no_number(self, text):
        assert refusal(f"lr={text}") == f"lr={text} is not a number"

    @pytest.mark.parametrize("text", ["", "maybe", "2"])
    def test_not_true_or_false(self, text):
        assert refusal(f"tied={text}") == f"tied={text} is not true or false"

    def test_a_choice_names_the_nearest(self):
        assert "mode=lines is none of line, stream; did you mean line?" in refusal("mode=lines")

    @pytest.mark.parametrize(("name", "kind", "low", "high"), [field[1:] for field in NUMBERS])
    def test_the_ends_of_a_range_are_in_it_and_nothing_beyond(self, name, kind, low, high):
        for end in (low, high):
            assert value_of(Config().with_settings([f"{name}={end}"]), name) == end
        below, above = low - 1, high + 1
        if kind is float:
            below, above = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
        for value in (below, above):
            assert refusal(f"{name}={value}").startswith(f"{name}={value} is out of range")

    @pytest.mark.parametrize("name", [name for _, name, kind, *_ in NUMBERS if kind is float])
    @pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-inf", "Infinity", "1e999"])
    def test_what_is_not_finite_is_out_of_range(self, name, text):
        assert "is out of range" in refusal(f"{name}={text}")

    @given(st.sampled_from(FIELDS), st.text())
    def test_any_text_is_a_value_in_range_or_refused(self, field, text):
        _, name, kind, low, high = field
        try:
            value = value_of(Config().with_settings([f"{name}={text}"]), name)
        except ConfigError:
            return
        if kind in (int, float):
            assert low <= value <= high

    @given(st.sampled_from(FIELDS), st.data())
    def test_every_valid_value_is_taken_as_it_is_typed(self, field, data):
        _, name, kind, low, high = field
        value = data.draw(values_for(kind, low, high))
        found = value_of(Config().with_settings([f" {name} = {value} "]), name)
        assert found == (value.strip() if kind is str else value)
        assert type(found) is type(value)

    @given(st.sampled_from(FIELDS), st.data())
    def test_every_wrong_value_is_refused_in_a_line_that_names_it(self, field, data):
        part, name, *rest = field
        value = data.draw(wrong_for(*rest))
        values = json.loads(Config().to_json())
        values[part][name] = value
        for give in (
            lambda: Config().with_values(**{name: value}),
            lambda: Config.from_json(json.dumps(values), "here"),
        ):
            with pytest.raises(ConfigError) as caught:
                give()
            assert str(caught.value).startswith(f"{name}=")
            assert str(caught.value).isprintable()

    @pytest.mark.parametrize("value", [None, [], "3", 3.0, True])
    def test_values_of_another_type_are_refused(self, value):
        with pytest.raises(ConfigError, match="epochs="):
            Config().with_values(epochs=value)


class TestJson:
    @settings(max_examples=50)
    @given(CONFIGS)
    def test_gives_the_same_configuration_again(self, config):
        text = config.to_json()
        assert Config.from_json(text, "here") == config
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    @pytest.mark.parametrize("name", PRESETS)
    def test_presets(self, name):
        assert Config.from_json(preset(name).to_json(), "here") == preset(name)

    def test_a_setting_left_out_has_its_default(self):
        values = json.loads(Config().to_json())
        del values["training"]["epochs"]
        assert Config.from_json(json.dumps(values), "here") == Config()

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "null", "[]", "3", "{}", '{"preset": "tiny"}'])
    def test_what_is_no_configuration_is_refused_by_name(self, text):
        with pytest.raises(ConfigError, match=r"run/config\.json"):
            Config.from_json(text, "run/config.json")

    @pytest.mark.parametrize(
        ("part", "name", "value"),
        [
            ("training", "epochz", 3),
            ("training", "epochs", -1),
            ("training", "epochs", "3"),
            ("training", "lr", math.nan),
            ("training", "lr", math.inf),
            ("model", "embedding_size", 10**9),
            ("model", "layers", True),
            ("data", "mode", ["line"]),
            ("data", "corpus", None),
        ],
    )
    def test_damaged_values(self, part, name, value):
        values = json.loads(Config().to_json())
        values[part][name] = value
        with pytest.raises(ConfigError):
            Config.from_json(json.dumps(values), "here")

    @given(
        st.sampled_from(["data", "model", "training", "preset"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(all_settings())), inner),
            max_leaves=8,
        ),
    )
    def test_any_json_is_a_configuration_or_refused(self, part, value):
        values = {**json.loads(Config().to_json()), part: value}
        try:
            config = Config.from_json(json.dumps(values), "here")
        except ConfigError:
            return
        assert Config.from_json(config.to_json(), "here") == config


@pytest.mark.parametrize(
    ("tied", "layers", "sizes"),
    [
        (True, 1, [(400, 400)]),
        (True, 3, [(400, 1150), (1150, 1150), (1150, 400)]),
        (False, 1, [(400, 1150)]),
        (False, 2, [(400, 1150), (1150, 1150)]),
    ],
)
def test_layer_sizes(tied, layers, sizes):
    assert ModelConfig(embedding_size=400, hidden_size=1150, tied=tied, layers=layers).layer_sizes() == sizes


def test_configurations_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().training.epochs = 3

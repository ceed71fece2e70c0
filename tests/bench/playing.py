"""Groups about playing: the speed of generation on one core, and models by others."""

from tests.bench.interface import find_smollm2
from tests.bench.measuring import Figure, all_cores, call, compare, milliseconds


def _ratio(name, runs, key, reference, at_least=None):
    return Figure(name, "", tuple(run[key] / run[reference] for run in runs), None, at_least)


def measure_generate(options):
    """Words per second of the LSTMs, beside the notebook's."""
    targets = {"bundled": (15, 60, 40), "words": (None, 60, 40), "default": (None,) * 3, "large": (18, None, None)}
    rounds = []
    for _ in range(options.repeat):
        speeds = {"notebook": {"alone": call("loops", "play_notebook")[0]}}
        for name in targets:
            replies = call("speeds", "reply_speeds", name)[0] if name != "large" else {}
            speeds[name] = call("speeds", "lstm_speeds", name)[0] | replies
        rounds.append({f"{name} {key}": value for name, each in speeds.items() for key, value in each.items()})

    def speed(key):
        return Figure(key, "words/s", tuple(run[key] for run in rounds))

    yield speed("notebook alone")
    for name, limits in targets.items():
        keys = ("alone", "all", "first")
        for key, limit in zip(keys, limits, strict=True):
            if f"{name} {key}" in rounds[0]:
                yield speed(f"{name} {key}")
                yield _ratio(f"{name} {key}, ratio to the notebook", rounds, f"{name} {key}", "notebook alone", limit)
        if name in ("bundled", "large"):
            yield speed(f"{name} batch")
            yield _ratio(f"{name}, 16 texts at once, ratio", rounds, f"{name} batch", f"{name} sequence", 4)
    yield speed("large int8")
    yield _ratio("large int8, ratio to the notebook", rounds, "large int8", "notebook alone", 25)
    yield speed("large bound")
    yield _ratio("large, share of the bandwidth limit", rounds, "large alone", "large bound", 0.8)


def measure_transformer_generate(options):
    """Tokens per second of the preset `gpt`, beside transformers with the same weights."""
    runs = [call("speeds", "transformer_speeds")[0] for _ in range(options.repeat)]
    yield Figure("transformers, one core", "tokens/s", tuple(run["transformers"] for run in runs))
    for name in ("fp32", "int8"):
        for key in ("alone", "batch"):
            yield Figure(f"{name} {key}", "tokens/s", tuple(run[f"{name}_{key}"] for run in runs))
        yield _ratio(f"{name}, ratio to transformers", runs, f"{name}_alone", "transformers", 5)
        yield _ratio(f"{name}, 16 texts at once, ratio", runs, f"{name}_batch", f"{name}_sequence")
        yield Figure(f"{name}, branch 200 tokens back", "ms", tuple(run[f"{name}_branch"] for run in runs), 50)
        which = "largest" if name == "fp32" else "mean"
        differences = tuple(run[f"{name}_difference"] for run in runs)
        yield Figure(f"{name}, {which} difference from transformers", "nats", differences)


def measure_pretrained(options):
    """Speed of SmolLM2-135M, beside transformers in the same process."""
    runs, _ = call("speeds", "pretrained_speeds", find_smollm2(), options.repeat, threads=all_cores())
    yield Figure("loading", "s", tuple(runs["loading"]))
    names = "SmolLM2 with the bars of the session", "generate of transformers"
    yield from compare(*names, "tokens/s", runs["session"], runs["transformers"], at_least=0.8)
    names = "lens on 500 tokens", "one forward pass"
    yield from compare(*names, "s", runs["lens"], runs["forward"], at_most=1.2)
    yield milliseconds("branch 200 tokens back, to its first token", runs["branch"], 50)
    yield milliseconds("the same token at the end", runs["advance"])

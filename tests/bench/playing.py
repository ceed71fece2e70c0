"""Groups about playing: the speed of generation on one core, and models by others."""

from engine.config import LSTM
from tests.bench.interface import find_smollm2
from tests.bench.measuring import Figure, all_cores, call, compare, milliseconds


def _ratio(name, runs, key, reference):
    return Figure(name, "", tuple(run[key] / run[reference] for run in runs))


def measure_generate(options, names=(LSTM, "words", "default", "large")):
    """Words per second of the LSTMs, beside the notebook's."""
    rounds = []
    for _ in range(options.repeat):
        speeds = {"notebook": {"alone": call("loops", "play_notebook")[0]}}
        for name in names:
            speeds[name] = call("speeds", "lstm_speeds", name)[0] | call("speeds", "reply_speeds", name)[0]
        rounds.append({f"{name} {key}": value for name, each in speeds.items() for key, value in each.items()})
    for key in rounds[0]:
        yield Figure(key, "words/s", tuple(run[key] for run in rounds))
        yield _ratio(f"{key}, ratio to the notebook", rounds, key, "notebook alone")
    for name in (LSTM, "large"):
        yield _ratio(f"{name}, 16 texts at once, ratio", rounds, f"{name} batch", f"{name} sequence")
    yield _ratio("large, share of the bandwidth limit", rounds, "large alone", "large bound")


def measure_transformer_generate(options):
    """Tokens per second of the preset `gpt`, beside transformers with the same weights."""
    runs = [call("speeds", "transformer_speeds")[0] for _ in range(options.repeat)]
    yield Figure("transformers, one core", "tokens/s", tuple(run["transformers"] for run in runs))
    for name in ("fp32", "int8"):
        for key in ("alone", "batch"):
            yield Figure(f"{name} {key}", "tokens/s", tuple(run[f"{name}_{key}"] for run in runs))
        yield _ratio(f"{name}, ratio to transformers", runs, f"{name}_alone", "transformers")
        yield _ratio(f"{name}, 16 texts at once, ratio", runs, f"{name}_batch", f"{name}_sequence")
        yield Figure(f"{name}, branch 200 tokens back", "ms", tuple(run[f"{name}_branch"] for run in runs))
        which = "largest" if name == "fp32" else "mean"
        differences = tuple(run[f"{name}_difference"] for run in runs)
        yield Figure(f"{name}, {which} difference from transformers", "nats", differences)


def measure_pretrained(options):
    """Speed of SmolLM2-135M in 8 bits, beside transformers and llama.cpp (pip install llama-cpp-python)."""
    runs, _ = call("speeds", "pretrained_speeds", find_smollm2(), options.repeat, threads=all_cores())
    yield Figure("loading", "s", tuple(runs["loading"]))
    names = "SmolLM2 with the bars of the session", "generate of transformers"
    yield from compare(*names, "tokens/s", runs["session"], runs["transformers"])
    names = "lens on 500 tokens", "one forward pass"
    yield from compare(*names, "s", runs["lens"], runs["forward"])
    yield milliseconds("branch 200 tokens back, to its first token", runs["branch"])
    yield milliseconds("the same token at the end", runs["advance"])
    runs = [
        call("speeds", "decoder_speeds", find_smollm2())[0] | call("speeds", "llama_cpp_speeds", find_smollm2())[0]
        for _ in range(options.repeat)
    ]
    for key in runs[0]:
        yield Figure(f"{key}, one core", "tokens/s", tuple(run[key] for run in runs))
        if (ours := f"ours {key.split()[-1]}") in runs[0] and key != ours:
            yield _ratio(f"ratio to {key}", runs, ours, key)


def measure_adapters(options):
    """Tokens per second of the bundled adapter beside its base and merged, and differences in fp32."""
    find_smollm2()
    run, _ = call("speeds", "adapter_speeds")
    yield from compare("adapter beside the base", "merged", "tokens/s", run["beside"], run["merged"])
    for strength, difference in run["differences"].items():
        yield Figure(f"largest difference at strength {strength}, fp32", "nats", (difference,))

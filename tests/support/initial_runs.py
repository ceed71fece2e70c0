"""Small runs that other trainings start from."""

from dataclasses import replace

import numpy as np
from safetensors.numpy import save_file

from engine.models.decoders import weight_shapes
from engine.runs.directory import MODEL_FILE
from engine.runs.locked_run import create_run
from tests.support.training import make_config


def random_weights(config, tokenizer, seed=0):
    """Return random weights of the model that `config` describes."""
    rng = np.random.default_rng(seed)
    shapes = weight_shapes(config.model, len(tokenizer))
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def write_initial_run(path, tokenizer, weights=None, **values):
    """Write a run of the small configuration, with random weights unless others are given; return its configuration."""
    config = make_config(**values)
    config = replace(config, data=replace(config.data, tokenizer=tokenizer.name))
    run = create_run(config, tokenizer, path.name, path.parent)
    run.lock.release()
    save_file(random_weights(config, tokenizer) if weights is None else weights, path / MODEL_FILE)
    return config


def write_teacher(path, tokenizer, seed=0, **values):
    """Write a run with random weights drawn from `seed`, and return its path as `teachers` takes it."""
    write_initial_run(path, tokenizer, random_weights(make_config(**values), tokenizer, seed), **values)
    return str(path)

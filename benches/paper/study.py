"""Trains one model from the four starts that the paper compares, over several seeds.

A seed decides the rows that EVA sees, the order of the training rows, and the random A of LoRA. Both starts of a seed
train on the same batches, so that their difference is one of pairs.
"""

import numpy as np

from starts import default_start, parameters

LORA, TUNED, RHO_1, RHO_2 = "LoRA", "LoRA, tuned rate", "EVA, rho 1", "EVA, rho 2"
METHODS = [LORA, TUNED, RHO_1, RHO_2]


def run(program, task, seeds, score=None, say=print):
    """Curves and figures of all methods and seeds.

    `score` gives a figure of a trained model beyond its loss, of (program, folder): a success rate or an accuracy.
    """
    starts = {}
    for seed in range(seeds):
        say(f"{task.name}, seed {seed}: starts")
        one = program.init(task, f"eva-1-{seed}", "--rho", 1, "--max-batches", task.init_batches, seed=seed)
        two = program.init(task, f"eva-2-{seed}", "--rho", 2, "--max-batches", task.init_batches, seed=seed)
        folder = program.work / task.name / f"lora-{seed}"
        starts[seed] = {RHO_1: one, RHO_2: two, LORA: {"folder": default_start(one["folder"], folder, task.rank, seed)}}
    rate, tuning = tuned_rate(program, task, starts[0][LORA]["folder"], say)
    found = {}
    for method in METHODS:
        found[method] = {"rate": rate if method == TUNED else task.rate, "runs": []}
        for seed, of_seed in starts.items():
            start = of_seed[LORA if method == TUNED else method]
            name = f"{METHODS.index(method)}-{seed}"
            say(f"{task.name}, seed {seed}: {method}, rate {found[method]['rate']:g}")
            trained = program.train(task, name, start["folder"], seed, found[method]["rate"])
            found[method]["runs"].append(summary(trained, start, score and score(program, task, trained["folder"])))
    return {
        "name": task.name,
        "methods": found,
        "tuning": tuning,
        "seeds": seeds,
        "steps": task.steps,
        "batch_size": task.batch_size,
        "max_length": task.max_length,
        "rank": task.rank,
    }


def tuned_rate(program, task, start, say):
    """The rate with the lowest loss on held-out rows, of seed 0, and the loss of each."""
    losses = {}
    for rate in task.rates:
        say(f"{task.name}: tuning, rate {rate:g}")
        losses[rate] = last_loss(program.train(task, f"tuning-{rate:g}", start, 0, rate))
    return min(losses, key=losses.get), [[rate, loss] for rate, loss in losses.items()]


def last_loss(trained):
    return trained["evaluations"][-1]["loss"]


def summary(trained, start, score):
    """What is kept of a training."""
    steps = trained["steps"]
    return {
        "loss": [step["loss"] for step in steps],
        "norm": [step["norm"] for step in steps],
        "seconds_a_step": float(np.median([step["seconds"] for step in steps])),
        "seconds": trained["used"]["wall"],
        "init_seconds": start["used"]["wall"] if "used" in start else 0.0,
        "held_out": last_loss(trained),
        "parameters": parameters(trained["folder"]),
        "score": score,
    }


def values(found, method, key):
    """A figure of every seed of a method."""
    pick = FIGURES[key]
    return np.array([pick(run) for run in found["methods"][method]["runs"]], dtype=float)


def early(losses):
    """The mean training loss of the first quarter of the steps after the first, which none has changed."""
    return float(np.mean(losses[1 : max(2, 1 + len(losses) // 4)]))


FIGURES = {
    "first norm": lambda run: run["norm"][0],
    "early loss": lambda run: early(run["loss"]),
    "held-out loss": lambda run: run["held_out"],
    "score": lambda run: run["score"],
    "parameters": lambda run: run["parameters"],
}

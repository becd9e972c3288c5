"""Trains one model from the four starts that the paper compares, over several seeds.

A seed decides the rows that EVA sees, the order of the training rows, and the random A of LoRA. Both starts of a seed
train on the same batches, so that their difference is one of pairs.
"""

import functools

import numpy as np

from starts import default_start, parameters

LORA, TUNED, RHO_1, RHO_2 = "LoRA", "LoRA, tuned rate", "EVA, rho 1", "EVA, rho 2"
# The start of each method.
STARTS = {LORA: "lora", TUNED: "lora", RHO_1: "eva-1", RHO_2: "eva-2"}
METHODS = list(STARTS)


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
        lora = {"folder": default_start(one["folder"], folder, task.rank, seed)}
        starts[seed] = {"eva-1": one, "eva-2": two, "lora": lora}

    # A training is the same whichever method asks for it.
    @functools.cache
    def train(start, seed, rate):
        say(f"{task.name}, seed {seed}: {start}, rate {rate:g}")
        return program.train(task, f"trained-{start}-{seed}-{rate:g}", starts[seed][start]["folder"], seed, rate)

    rate, tuning = tuned_rate(task.rates, train)
    found = {}
    for method, start in STARTS.items():
        found[method] = {"rate": rate if method == TUNED else task.rate, "runs": []}
        for seed in range(seeds):
            trained = train(start, seed, found[method]["rate"])
            scored = score and score(program, task, trained["folder"])
            found[method]["runs"].append(summary(trained, starts[seed][start], scored))
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


def tuned_rate(rates, train):
    """The rate with the lowest loss on held-out rows, of LoRA and seed 0, and the loss of each."""
    losses = {rate: last_loss(train("lora", 0, rate)) for rate in rates}
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

"""What the page and the Markdown file say: a list of blocks, each a tuple of its kind and what it holds."""

import numpy as np

import claims
from claims import SCORES, TITLES, spread
from study import METHODS, values

INTRODUCTION = (
    "What the paper of EVA (Paischer et al., NeurIPS 2025, arXiv:2410.07170) claims, at a small scale. `eva-onnx init` and "
    "`eva-onnx train` made all of it from ONNX models; PyTorch only exported them, and made the first models of the digits and of "
    "Meta-World. Written by `make paper`."
)
RULE = (
    "A claim is `yes` if it holds for every seed, `no` if for none. Figures are means and standard deviations over seeds; "
    "differences and ratios are of pairs with the same seed, whose trainings see the same batches in the same order."
)


def of(results):
    """All blocks of the parts that ran."""
    setup = results["setup"]
    made = [("text", INTRODUCTION), ("text", describe(setup))]
    lines = []
    for name in ("language", "digits", "robot"):
        if name in results:
            lines += claims.of_study(results[name])
    if "components" in results:
        lines += claims.of_components(results["components"])
    if "share" in results:
        lines += claims.of_share(results["share"])
    made += [("heading", "Claims"), ("table", ["model", "claim of the paper", "here", "shown"], lines), ("text", RULE)]
    for name in ("language", "digits", "robot"):
        if name in results:
            made += of_study(results[name])
    if "components" in results:
        made += of_components(results["components"])
    if "share" in results:
        made += of_share(results["share"])
    return made


def describe(setup):
    kind = "quick" if setup["quick"] else "full"
    seconds = "; ".join(f"{part} {seconds:.0f} s" for part, seconds in setup["seconds"].items())
    return f"A {kind} run of commit {setup['commit']} on {setup['date']}: {setup['machine']}, {setup['device']}. Time: {seconds}."


def of_study(found):
    """Curves and figures of one model."""
    score = SCORES.get(found["name"])
    columns = ["", "rate", "first gradient norm", "training loss, first quarter", "held-out loss", "parameters"]
    rows = []
    for method in METHODS:
        row = [method, f"{found['methods'][method]['rate']:g}"]
        row += [spread(values(found, method, "first norm"), 3), spread(values(found, method, "early loss"), 4)]
        row += [spread(values(found, method, "held-out loss"), 4), f"{np.mean(values(found, method, 'parameters')):,.0f}"]
        rows.append(row + ([spread(100 * values(found, method, "score"), 1) + " %"] if score else []))
    tuning = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in found["tuning"])
    about = (
        f"{found['seeds']} seeds, {found['steps']} steps of {found['batch_size']} rows, rank {found['rank']}. The tuned rate of "
        f"LoRA has the lowest loss on the held-out rows after a training from seed 0: {tuning}."
    )
    return [
        ("heading", TITLES[found["name"]]),
        ("text", about + REMARKS[found["name"]]),
        ("chart", "Training loss", curves(found, "loss")),
        ("chart", "Norm of the gradient, before it is clipped to 1", curves(found, "norm")),
        ("table", columns + ([score] if score else []), rows),
    ]


REMARKS = {
    "language": " The rows are GSM8K's questions and answers in a row, of which only answers are predicted.",
    "digits": " A small ViT was trained on scikit-learn's digits 0 to 4, and adapts to 5 to 9 with a new head, which is trained whole.",
    "robot": " A small Decision Transformer was trained on six tasks of Meta-World and adapts to another, with the steps of scripted "
    "policies as rows. Its loss is on the action now, where the paper's is on those of all steps of a window. The success rate is "
    "that of 25 goals that no row is about.",
}


def curves(found, key):
    """Mean, least and most of all seeds, by method and step; smoothed over a twentieth of the steps."""
    made = {}
    for method in METHODS:
        runs = np.array([smooth(run[key]) for run in found["methods"][method]["runs"]])
        made[method] = (runs.mean(0), runs.min(0), runs.max(0))
    return made


def smooth(numbers):
    width = max(1, len(numbers) // 20)
    padded = np.concatenate([np.full(width - 1, numbers[0]), numbers])
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def of_components(compared):
    sizes, orders = claims.pairs(compared)
    shared = claims.pairs(compared, "shared")
    rows = [
        ["size of the batches", f"{np.mean(sizes):.3f} ({np.min(sizes):.3f} to {np.max(sizes):.3f})", f"{np.mean(shared[0]):.3f}"],
        ["order of the rows", f"{np.mean(orders):.3f} ({np.min(orders):.3f} to {np.max(orders):.3f})", f"{np.mean(shared[1]):.3f}"],
    ]
    stops = ", ".join(
        f"{run['batches']} batches of {run['size']}{'' if run['converged'] else ' (all rows)'}" for run in compared["runs"]
    )
    about = (
        f"The first {compared['rank']} components of every layer input of SmolLM2-135M, of {compared['rows']} rows of "
        f"{compared['max_length']} tokens. Every run stops when no component moves any more (tau 0.99), so runs see different rows: "
        f"{stops}. Components of nearly equal variance mix from run to run, which lowers the cosine of components of one index, but "
        "not that of the spans (mean squared cosine of the principal angles)."
    )
    labels = [f"{size}, order {order}" for size, order in compared["names"]]
    return [
        ("heading", "Components over batch sizes and orders (Figure 5, right)"),
        ("text", about),
        ("matrix", "Mean |cosine| of components; rows and columns are the size of batches and the order of rows", labels,
         compared["cosine"]),
        ("table", ["runs that differ in", "\\|cosine\\|, mean (least to most of a pair)", "spans"], rows),
    ]


def of_share(share):
    rows = []
    for row in share["rows"]:
        batches = ", ".join(map(str, row["batches"])) + ("" if row["converged"] else " (not all converged)")
        rows.append([str(row["size"]), batches, spread(row["seconds"], 1), f"{100 * np.mean(row['shares']):.2f} %"])
    about = (
        f"Seconds of the whole process of `init`, against an epoch of GSM8K: {share['steps']} steps at the median of "
        f"{share['seconds_a_step']:.3f} s, which is an extrapolation. Runs were timed one after the other on the machine named above."
    )
    header = ["rows in a batch of init", "batches until it stopped", "seconds", "share of init and an epoch"]
    return [("heading", "Share of init in the time of a training (Figure 5, left)"), ("text", about), ("table", header, rows)]

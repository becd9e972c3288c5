"""What the paper claims, and whether these runs show it. A claim is a rule about measured figures, none about words.

A comparison of two methods is one of seeds: `yes` if it goes the paper's way for every seed, `no` if for none, and
`not always` otherwise. With few seeds, `yes` is a weak word: three fair coins agree one time in four.
"""

import numpy as np

from study import LORA, RHO_1, RHO_2, TUNED, values

# The share of init in the time of a training that the paper calls small.
SMALL_SHARE = 0.01
TITLES = {"language": "SmolLM2-135M, GSM8K", "digits": "ViT, digits", "robot": "Decision Transformer, Meta-World"}
SCORES = {"digits": "accuracy", "robot": "success rate"}


def of_study(found):
    """Lines of claim, figures and verdict for one model."""
    ratio = values(found, RHO_1, "first norm") / values(found, LORA, "first norm")
    lines = [("The first gradient is larger from EVA (rho 1) than from LoRA", f"{spread(ratio, 2)} times", ratio > 1)]
    lines.append(lower(found, "early loss", RHO_2, LORA, "The training loss falls faster from EVA (rho 2) than from LoRA"))
    lines.append(lower(found, "held-out loss", RHO_2, LORA, "It ends lower on held-out rows"))
    lines.append(lower(found, "held-out loss", RHO_2, TUNED, "It ends lower than LoRA's with a tuned rate, EVA's being untuned"))
    lines.append(lower(found, "held-out loss", RHO_2, RHO_1, "Ranks by explained variance (rho 2) end lower than equal ranks (rho 1)"))
    share = values(found, RHO_2, "parameters") / values(found, RHO_1, "parameters")
    lines.append(("Ranks by explained variance need fewer parameters", f"{spread(100 * share, 1)} % of rho 1", share < 1))
    if found["name"] in SCORES:
        differences = values(found, RHO_2, "score") - values(found, LORA, "score")
        claim = f"The {SCORES[found['name']]} of EVA (rho 2) is higher than LoRA's"
        lines.append((claim, f"{spread(100 * differences, 1, sign=True)} points", differences > 0))
    return [[TITLES[found["name"]], claim, measured, verdict(held)] for claim, measured, held in lines]


def lower(found, key, a, b, claim):
    differences = values(found, a, key) - values(found, b, key)
    return claim, f"{spread(differences, 4, sign=True)}", differences < 0


def of_components(compared):
    """Whether the size of batches moves components more than the order of the rows does."""
    sizes, orders = pairs(compared)
    claim = "Components of batches of different sizes agree as well as those of different orders of the rows do"
    measured = f"mean \\|cosine\\| {np.mean(sizes):.3f} over sizes, {np.mean(orders):.3f} over orders"
    held = np.array([np.mean(sizes) >= np.min(orders)])
    return [[TITLES["language"], claim, measured, verdict(held)]]


def pairs(compared, key="cosine"):
    """The figures of pairs of runs that differ in the size of batches alone, and in the order of rows alone."""
    matrix, names = compared[key], compared["names"]
    found = [[], []]
    for i, (size, order) in enumerate(names):
        for j in range(i):
            if (names[j][0] == size) != (names[j][1] == order):
                found[int(names[j][0] == size)].append(matrix[i][j])
    return found


def of_share(share):
    claim = f"Init takes at most {100 * SMALL_SHARE:g} % of an epoch's time (extrapolated from steps)"
    shares = np.array([value for row in share["rows"] for value in row["shares"]])
    measured = f"{100 * shares.min():.2f} % to {100 * shares.max():.2f} %, by the size of init's batches"
    return [[TITLES["language"], claim, measured, verdict(shares <= SMALL_SHARE)]]


def verdict(held):
    return "yes" if np.all(held) else "not always" if np.any(held) else "no"


def spread(numbers, digits, sign=False):
    """Mean and sample standard deviation."""
    deviation = np.std(numbers, ddof=1) if len(numbers) > 1 else float("nan")
    return f"{np.mean(numbers):{'+' if sign else ''}.{digits}f} ± {deviation:.{digits}f}"

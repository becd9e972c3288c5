"""What eva-onnx is compared with: the exact principal components, and PEFT's EVA, of a PyTorch checkpoint.

    python benches/reference.py exact CHECKPOINT ROWS BATCH_SIZE MODULES.json OUT.safetensors
    python benches/reference.py peft  CHECKPOINT ROWS BATCH_SIZE MODULES.json OUT.safetensors RANK RHO TAU

MODULES.json lists the linear layers. Prints JSON.
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import save_file

import batches


def load(checkpoint):
    """The model class is the one that the checkpoint was saved from."""
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    architecture = getattr(transformers, config.architectures[0])
    return architecture.from_pretrained(checkpoint, dtype=torch.float32, use_safetensors=True).eval()


def read(rows, size):
    return [{name: torch.from_numpy(value) for name, value in batch.items()} for batch in batches.read(rows, size)]


@torch.no_grad()
def exact(model, data, modules, out):
    """Saves the covariance of every distinct input in float64, and which module has which.

    Padding is left out. Returns the number of rows.
    """
    owners = shared_inputs(model, modules, data[0])
    sums = {}
    kept = None

    def accumulate(name):
        def hook(_, args):
            rows = args[0][kept].double()
            if name not in sums:
                width = rows.shape[1]
                sums[name] = [0, torch.zeros(width).double(), torch.zeros(width, width).double()]
            sums[name][0] += len(rows)
            sums[name][1] += rows.sum(0)
            sums[name][2].addmm_(rows.T, rows)

        return hook

    for name in sorted(set(owners.values())):
        model.get_submodule(name).register_forward_pre_hook(accumulate(name))
    for batch in data:
        kept = batch["attention_mask"].bool()
        model.base_model(**batch)
    for name in list(sums):
        rows, total, products = sums[name]
        sums[name] = (products - torch.outer(total, total) / rows) / rows
    save_file(sums, out, {"owners": json.dumps(owners)})
    return {"rows": rows}


def shared_inputs(model, modules, batch):
    """For every module, the first one that is given the very same tensor."""
    given, owners, handles = [], {}, []

    def remember(name):
        def hook(_, args):
            owner = next((owner for tensor, owner in given if tensor is args[0]), name)
            owners[name] = owner
            if owner == name:
                given.append((args[0], name))

        return hook

    for name in modules:
        handles.append(model.get_submodule(name).register_forward_pre_hook(remember(name)))
    model.base_model(**batch)
    for handle in handles:
        handle.remove()
    return owners


class OnePass(Exception):
    """All batches were seen once."""


def peft(model, data, modules, out, rank, rho, tau):
    """Runs PEFT's own initialisation over the data once and saves the components, and which module has which.

    PEFT cycles through the data until every component has converged, so it is stopped from its forward function, and
    the state is read from its stack frame. It makes one forward pass more than there are batches, to find shared
    inputs.
    """
    from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights

    config = LoraConfig(
        r=rank, target_modules=modules, init_lora_weights="eva", eva_config=EvaConfig(rho=rho, tau=tau)
    )
    model = get_peft_model(model, config, low_cpu_mem_usage=True)
    forwards = 0

    def forward(model, inputs):
        nonlocal forwards
        if forwards == len(data) + 1:
            raise OnePass
        forwards += 1
        return model(**inputs)

    started = time.perf_counter()
    try:
        initialize_lora_eva_weights(model, data, forward_fn=forward, show_progress_bar=False)
    except OnePass as stop:
        seconds = time.perf_counter() - started
        state = frame(stop, "_get_eva_state_dict").f_locals
    else:
        raise SystemExit("PEFT converged before the end of the data: give it more rows or a higher tau")

    prefix = "base_model.model."
    owners = {module.removeprefix(prefix): owner for module, owner in state["layer_hook_map"].items()}
    solvers = {owner: hook.svd for owner, (hook, _) in state["hooks"].items()}
    components = {owner: solver.components_.float().contiguous() for owner, solver in solvers.items()}
    save_file(components, out, {"owners": json.dumps(owners)})
    ranks = {module.removeprefix(prefix): count for module, count in state["rank_dist"].items()}
    rows = {module: int(solvers[owner].n_samples_seen_) for module, owner in owners.items()}
    return {"seconds": seconds, "ranks": ranks, "rows": rows, "peak_rss_bytes": batches.peak_rss()}


def frame(error, function):
    """The frame of a function on the stack of an exception."""
    trace = error.__traceback__
    while trace.tb_frame.f_code.co_name != function:
        trace = trace.tb_next
    return trace.tb_frame


def main():
    command, checkpoint, rows, size, modules, out, *options = sys.argv[1:]
    with open(modules) as file:
        modules = json.load(file)
    arguments = load(checkpoint), read(rows, int(size)), modules, out
    if command == "exact":
        result = exact(*arguments)
    elif command == "peft":
        rank, rho, tau = options
        result = peft(*arguments, int(rank), float(rho), float(tau))
    else:
        raise SystemExit(__doc__)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

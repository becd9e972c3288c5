"""The rows of A are the principal directions of what each linear layer is given in PyTorch."""

import numpy as np
import pytest
import torch
from conftest import base_model, batches
from sklearn.decomposition import IncrementalPCA

EXPORTS = ["example/dynamo", "example/optimum"]
COMPONENTS = 32


def activations(export, modules):
    """The inputs of every module without padding, batch by batch."""
    model = base_model(export)
    found = {module: [] for module in modules}
    kept = None

    def collect(module):
        return lambda _, args: found[module].append(args[0][kept].double().numpy())

    for module in modules:
        model.get_submodule(module).register_forward_pre_hook(collect(module))
    with torch.no_grad():
        for batch in batches(export):
            kept = batch["attention_mask"].bool()
            model(**batch)
    return found


@pytest.mark.parametrize("capture", ["sketch", "outputs"])
@pytest.mark.parametrize("export", EXPORTS)
def test_a_captures_the_variance_of_exact_components(init, export, capture):
    adapter = init(export, "--capture", capture, "--tau", 1)
    inputs = activations(export, adapter.layers)
    for module, layer in adapter.layers.items():
        covariance = np.cov(np.concatenate(inputs[module]), rowvar=False)
        rank = layer["rank"]
        assert rank > 0, module
        a = adapter.a(module).double().numpy()
        assert a.shape == (rank, layer["in_features"])
        assert np.allclose(a @ a.T, np.eye(rank), atol=1e-5), module
        best = np.linalg.eigvalsh(covariance)[-rank:].sum()
        captured = np.trace(a @ covariance @ a.T) / best
        assert captured >= 0.999, (module, captured)


@pytest.mark.parametrize("export", EXPORTS)
def test_outputs_agree_with_incremental_pca(init, export):
    """Batch by batch the same algorithm, so the signs and the order agree too.

    ONNX Runtime and PyTorch differ by about 1e-6 of the activations, and neighbouring variances by 2e-3 and more:
    directions turn by their quotient, 5e-4 radians, which is 1e-7 in the cosine. The bound is ten times that.
    """
    adapter = init(export, "--capture", "outputs", "--ranks", "uniform", "--rank", COMPONENTS, "--tau", 1)
    inputs = activations(export, adapter.first_of_groups)
    for module in inputs:
        pca = IncrementalPCA(n_components=COMPONENTS)
        for rows in inputs[module]:
            pca.partial_fit(rows)
        cosines = np.sum(adapter.a(module).double().numpy() * pca.components_, axis=1)
        assert cosines.min() >= 1 - 1e-6, (module, cosines.min())

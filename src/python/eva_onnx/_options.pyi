# The options of the command line. `UPDATE_DOCS=1 cargo test --bin eva-onnx stubs` writes this file.

import os
from collections.abc import Sequence
from typing import Literal, TypedDict

_Path = str | os.PathLike[str]

class InitOptions(TypedDict, total=False):
    # LoRA rank r; the rank budget is r times the number of modules
    rank: int
    # LoRA alpha at rank r
    alpha: float
    # Largest rank of a module, as a multiple of r
    rho: float
    # Smallest rank of a module
    min_rank: int
    # How ranks are allocated
    ranks: Literal["eva", "uniform"]
    # Divide every row of A by the square root of its singular value
    whiten: bool
    # Stop when the |cosine| of every used component with its value one batch earlier is at least this; 1 never stops early [default: 0.99; with --shard 1]
    tau: float
    # How statistics of the activations are gathered
    capture: Literal["sketch", "outputs"]
    # `all-linear` (every linear layer but the output head), a list of name endings, or one regular expression for whole names
    target_modules: str | Sequence[str]
    # Modules to leave out: a list of name endings, or one regular expression for whole names
    exclude_modules: str | Sequence[str]
    # PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file
    checkpoint: _Path
    # Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict
    trust_node_names: bool
    # Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it
    names: Literal["weights", "nodes"]
    # Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    rename: str | Sequence[str]
    # Remove this prefix from module names
    strip_prefix: str
    # Add this prefix to every module name
    add_prefix: str
    # tokenizer.json [default: the one beside the model, or above its folder `onnx`]
    tokenizer: _Path
    # Chat template of rows with messages: a .jinja file, or the name of one of the tokenizer's [default: the tokenizer's]
    chat_template: str
    # Field that holds the text of a row
    text_field: str
    # Field that holds the second text of a pair, beside --text-field
    pair_field: str
    # Text of a row, with field names in braces
    text_template: str
    # Use only the tokens of the completion or answer
    completion_only: bool
    # Cut rows to this many tokens; the positions in config.json are a further limit
    max_length: int
    # Rows per batch
    batch_size: int
    # Tokens per batch, padding included, instead of rows; a longer row is a batch by itself
    batch_tokens: int
    # Pad every batch to this many tokens, and cut longer rows
    pad_to: int
    # Pad every batch to a multiple of this many tokens, for models that take no other lengths
    pad_multiple: int
    # Stop after this many batches [default: one pass over the data]
    max_batches: int
    # Shuffle all rows with the seed
    shuffle: bool
    # Keep the rows in order instead of batching rows of similar length
    keep_order: bool
    # What to do about a row that cannot be read or does not fit the model
    on_bad_row: Literal["fail", "skip"]
    # Seed of everything random
    seed: int
    # auto, cpu, cuda, cuda:N, or for `init` a list such as cuda:0,cuda:1 whose devices share the work; auto uses CUDA where it is available, and the summary names the device
    device: str | Sequence[str]
    # Encoder model that a decoder reads from [default: the one beside the model]
    encoder: _Path
    # Model that embeds tokens, for one that reads inputs_embeds [default: embed_tokens.onnx beside it]
    embed_tokens: _Path
    # Number of threads [default: number of cores]
    threads: int
    # The ONNX Runtime library, or its folder [default: search the usual places]
    ort_lib: _Path
    # Element type of the saved matrices
    dtype: Literal["f32", "f16", "bf16"]
    # `base_model_name_or_path` in the adapter config
    base_model: str
    # PEFT task type [default: by config.json for language models, else none; with the type of a classifier, PEFT expects the weights of its head in the adapter]
    task_type: Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"]
    # Write what is known of the rows to this file, which `merge` makes an adapter of; no adapter is written unless --out is given. If it is there already, of the same run, nothing is run
    summary: _Path
    # Run only part I of N of the rows, from 0; auto or auto/N asks Slurm, Kubernetes or HyperQueue. --tau is then 1 unless it is given
    shard: str
    # Keep the state of the run after every N batches, and on Ctrl-C in place of an adapter
    checkpoint_every: int
    # Go on from that state, if there is one; the result has the bytes of an uninterrupted run
    resume: bool
    # Run the model in blocks, one after the other, so that one at a time is in memory: their number, bytes of weights a block such as 200MB, or auto, which cuts only a model that does not fit. All batches are run
    blocks: str
    # Write the hidden states between blocks, and the state after each block, to this folder instead of keeping them in memory; --resume goes on from there
    spill: _Path
    # What several devices share
    split: Literal["rows", "layers"]
    # File of the state [default: the output with .checkpoint after its name]
    checkpoint_file: _Path
    # Folder to write; must not exist or be empty [default: adapter, or none with --summary]
    out: _Path
    # Replace files of the same names in the output folder
    force: bool
    # What to write besides eva.json; `splice` makes the same models later
    emit: Literal["peft", "trainable", "adapter-inputs"] | Sequence[Literal["peft", "trainable", "adapter-inputs"]]
    # Also write a page with the ranks, curves, notes and timings; `report` makes it later
    report: _Path

class TrainOptions(TypedDict, total=False):
    # PEFT folder to start from [default: initialised by EVA on the same rows]
    adapter: _Path
    # LoRA rank r; the rank budget is r times the number of modules
    rank: int
    # LoRA alpha at rank r
    alpha: float
    # Largest rank of a module, as a multiple of r
    rho: float
    # Smallest rank of a module
    min_rank: int
    # How ranks are allocated
    ranks: Literal["eva", "uniform"]
    # Divide every row of A by the square root of its singular value
    whiten: bool
    # Passes over the data
    epochs: int
    # Steps of the optimizer, instead of --epochs
    steps: int
    # Largest learning rate
    lr: float
    # How the learning rate falls
    schedule: Literal["cosine", "linear", "constant"]
    # Steps in which the learning rate rises from 0
    warmup: int
    # Batches per step
    accumulate: int
    # Largest norm of the gradient; 0 for any
    clip: float
    # Weight decay of AdamW
    weight_decay: float
    # Layers to train whole beside the adapter, by name or name ending, such as `classifier,score`; they become PEFT's `modules_to_save`
    train_modules: str | Sequence[str]
    # What is minimised [default: the loss of the class of transformers that config.json names]
    loss: Literal["causal-lm", "seq2seq-lm", "masked-lm", "token-classification", "single-label-classification", "multi-label-classification", "regression"]
    # Steps between evaluations [default: only at the end]
    eval_every: int
    # Do not compare the gradient with the loss before the first step
    no_check: bool
    # Whether activations are computed again for the gradient instead of kept, which saves memory and takes time
    recompute: Literal["auto", "on", "off"]
    # Steps between checkpoints, from which --resume goes on [default: only on Ctrl-C]
    save_every: int
    # Checkpoints to keep: the newest
    keep_checkpoints: int
    # Go on from the newest checkpoint in the output folder, with the same settings
    resume: bool
    # `all-linear` (every linear layer but the output head), a list of name endings, or one regular expression for whole names
    target_modules: str | Sequence[str]
    # Modules to leave out: a list of name endings, or one regular expression for whole names
    exclude_modules: str | Sequence[str]
    # PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file
    checkpoint: _Path
    # Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict
    trust_node_names: bool
    # Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it
    names: Literal["weights", "nodes"]
    # Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    rename: str | Sequence[str]
    # Remove this prefix from module names
    strip_prefix: str
    # Add this prefix to every module name
    add_prefix: str
    # tokenizer.json [default: the one beside the model, or above its folder `onnx`]
    tokenizer: _Path
    # Chat template of rows with messages: a .jinja file, or the name of one of the tokenizer's [default: the tokenizer's]
    chat_template: str
    # Field that holds the text of a row
    text_field: str
    # Field that holds the second text of a pair, beside --text-field
    pair_field: str
    # Text of a row, with field names in braces
    text_template: str
    # Use only the tokens of the completion or answer
    completion_only: bool
    # Cut rows to this many tokens; the positions in config.json are a further limit
    max_length: int
    # Rows per batch
    batch_size: int
    # Tokens per batch, padding included, instead of rows; a longer row is a batch by itself
    batch_tokens: int
    # Pad every batch to this many tokens, and cut longer rows
    pad_to: int
    # Pad every batch to a multiple of this many tokens, for models that take no other lengths
    pad_multiple: int
    # Stop after this many batches [default: one pass over the data]
    max_batches: int
    # Shuffle all rows with the seed
    shuffle: bool
    # Keep the rows in order instead of batching rows of similar length
    keep_order: bool
    # What to do about a row that cannot be read or does not fit the model
    on_bad_row: Literal["fail", "skip"]
    # Seed of everything random
    seed: int
    # auto, cpu, cuda, cuda:N, or for `init` a list such as cuda:0,cuda:1 whose devices share the work; auto uses CUDA where it is available, and the summary names the device
    device: str | Sequence[str]
    # Encoder model that a decoder reads from [default: the one beside the model]
    encoder: _Path
    # Model that embeds tokens, for one that reads inputs_embeds [default: embed_tokens.onnx beside it]
    embed_tokens: _Path
    # Number of threads [default: number of cores]
    threads: int
    # The ONNX Runtime library, or its folder [default: search the usual places]
    ort_lib: _Path
    # Element type of the saved matrices
    dtype: Literal["f32", "f16", "bf16"]
    # `base_model_name_or_path` in the adapter config
    base_model: str
    # PEFT task type [default: by config.json for language models, else none; with the type of a classifier, PEFT expects the weights of its head in the adapter]
    task_type: Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"]
    # Folder to write; must not exist or be empty
    out: _Path
    # Replace files of the same names in the output folder
    force: bool
    # Also write a page with the loss curve; `report` makes it later
    report: _Path

class MergeOptions(TypedDict, total=False):
    # LoRA rank r [default: as in `init`]
    rank: int
    # LoRA alpha at rank r [default: as in `init`]
    alpha: float
    # Largest rank of a module, as a multiple of r [default: as in `init`]
    rho: float
    # |cosine| at which a component counts as converged in the report
    tau: float
    # Smallest rank of a module [default: as in `init`]
    min_rank: int
    # How ranks are allocated [default: as in `init`]
    ranks: Literal["eva", "uniform"]
    # Divide every row of A by the square root of its singular value [default: as in `init`]
    whiten: bool
    # Modules to adapt, of those in the summary: a list of name endings, or one regular expression for whole names
    target_modules: str | Sequence[str]
    # Modules to leave out: a list of name endings, or one regular expression for whole names
    exclude_modules: str | Sequence[str]
    # Go on without the parts that are missing, and name them
    allow_missing: bool
    # Element type of the saved matrices
    dtype: Literal["f32", "f16", "bf16"]
    # `base_model_name_or_path` in the adapter config [default: as in `init`]
    base_model: str
    # Number of threads, which does not change the result [default: number of cores]
    threads: int
    # Folder of the adapter; must not exist or be empty [default: adapter, or none with --out-summary]
    out: _Path
    # File of the merged summary, which merges with others in turn
    out_summary: _Path
    # Also write a page with the ranks, curves and notes; `report` makes it later
    report: _Path
    # Replace what is there
    force: bool

class SpliceOptions(TypedDict, total=False):
    # What the model becomes
    as_: Literal["trainable", "adapter-inputs", "merged"]
    # With --as adapter-inputs: A and B must be given, for runtimes that ignore values for optional inputs (ONNX Runtime for JavaScript); their values are also written to adapter.safetensors
    required_inputs: bool
    # Modules of the adapter to use: a list of name endings, or one regular expression for whole names [default: all]
    modules: str | Sequence[str]
    # PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file
    checkpoint: _Path
    # Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict
    trust_node_names: bool
    # Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it
    names: Literal["weights", "nodes"]
    # Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    rename: str | Sequence[str]
    # Remove this prefix from module names
    strip_prefix: str
    # Add this prefix to every module name
    add_prefix: str
    # Replace files of the same names in the output folder
    force: bool
    # How the files with weights come into the output folder
    link: Literal["copy", "reflink", "hard"]

class ConvertOptions(TypedDict, total=False):
    # The program that reads the result, if it is not PEFT or ONNX Runtime
    for_: Literal["vllm", "tgi", "llama.cpp", "mlx", "diffusers"]
    # The model that the adapter is for: with --uniform-rank and --for tgi, its modules that the adapter lacks are added, if the adapter has others of their kind; for a .gguf file, its config.json names the architecture
    model: _Path
    # With --for diffusers: the part of the pipeline that the adapter is for, for example unet
    component: str
    # Replace what is there
    force: bool
    # One rank for all modules, padded with zeros, and one alpha: for readers without `rank_pattern`
    uniform_rank: bool
    # One alpha for all modules; B takes the rest of the scale: for readers that ignore `alpha_pattern`
    one_alpha: bool
    # The modules store their weights as [in, out] (GPT-2), which an .onnx_adapter file does not record
    fan_in_fan_out: bool
    # PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file
    checkpoint: _Path
    # Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict
    trust_node_names: bool
    # Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it
    names: Literal["weights", "nodes"]
    # Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    rename: str | Sequence[str]
    # Remove this prefix from module names
    strip_prefix: str
    # Add this prefix to every module name
    add_prefix: str
    # Element type of the saved matrices
    dtype: Literal["f32", "f16", "bf16"]
    # `base_model_name_or_path` in the adapter config
    base_model: str
    # PEFT task type [default: by config.json for language models, else none; with the type of a classifier, PEFT expects the weights of its head in the adapter]
    task_type: Literal["CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"]

class InspectOptions(TypedDict, total=False):
    # `all-linear` (every linear layer but the output head), a list of name endings, or one regular expression for whole names
    target_modules: str | Sequence[str]
    # Modules to leave out: a list of name endings, or one regular expression for whole names
    exclude_modules: str | Sequence[str]
    # PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file
    checkpoint: _Path
    # Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict
    trust_node_names: bool
    # Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it
    names: Literal["weights", "nodes"]
    # Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    rename: str | Sequence[str]
    # Remove this prefix from module names
    strip_prefix: str
    # Add this prefix to every module name
    add_prefix: str
    # Show the blocks that `init --blocks` runs instead of the layers: their number, bytes of weights a block such as 200MB, or auto
    blocks: str

class CheckOptions(TypedDict, total=False):
    # PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file
    checkpoint: _Path
    # Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict
    trust_node_names: bool
    # Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it
    names: Literal["weights", "nodes"]
    # Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    rename: str | Sequence[str]
    # Remove this prefix from module names
    strip_prefix: str
    # Add this prefix to every module name
    add_prefix: str

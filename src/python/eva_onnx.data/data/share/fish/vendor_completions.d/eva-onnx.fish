# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_eva_onnx_global_optspecs
    string join \n v/verbose config= h/help V/version
end

function __fish_eva_onnx_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_eva_onnx_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_eva_onnx_using_subcommand
    set -l cmd (__fish_eva_onnx_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -s h -l help -d 'Print help'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -s V -l version -d 'Print version'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "inspect" -d 'List the linear layers of a model and their PyTorch names, without running it'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "init" -d 'Run calibration data through a model and write an EVA-initialised LoRA adapter'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "merge" -d 'Make an adapter of what several runs of `init --summary` know, without running the model'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "check" -d 'Say whether a LoRA adapter fits a model, without running anything; the exit status is 1 if it does not'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "train" -d 'Train a LoRA adapter inside an ONNX model, without PyTorch'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "splice" -d 'Put a LoRA adapter into a model: to train it, to feed it at run time, or merged into the weights'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "convert" -d 'Convert an adapter between PEFT folders and .onnx_adapter files, or take it out of a spliced model'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "report" -d 'Show what init and train recorded: a heat map of the ranks, or a page with curves, notes and timings'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "doctor" -d 'Say what is there to run models: ONNX Runtime, its devices, CUDA; the exit status is 2 if no model can run'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "completions" -d 'Print a script with which a shell completes commands and options'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "man" -d 'Write the manual pages'
complete -c eva-onnx -n "__fish_eva_onnx_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l target-modules -d '`all-linear` (every linear layer but the output head), a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l exclude-modules -d 'Modules to leave out: a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l checkpoint -d 'PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l names -d 'Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it' -r -f -a "weights\t'Those of the weights'
nodes\t'Those of the nodes'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l rename -d 'Rewrite module names, for example \'vit\\.layers=vit.encoder.layer\'; may be repeated' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l strip-prefix -d 'Remove this prefix from module names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l add-prefix -d 'Add this prefix to every module name' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l blocks -d 'Show the blocks that `init --blocks` runs instead of the layers: their number, bytes of weights a block such as 200MB, or auto' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l trust-node-names -d 'Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -l json -d 'Print one JSON document instead of a table'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l data -d 'Calibration data: files or folders of JSON lines, JSON, CSV, TSV or plain text, also with gzip, or arrays; - is standard input; may be repeated' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l rank -d 'LoRA rank r; the rank budget is r times the number of modules' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l alpha -d 'LoRA alpha at rank r' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l rho -d 'Largest rank of a module, as a multiple of r' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l min-rank -d 'Smallest rank of a module' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l ranks -d 'How ranks are allocated' -r -f -a "eva\t'By explained variance'
uniform\t'The same rank for every module'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l tau -d 'Stop when the |cosine| of every used component with its value one batch earlier is at least this; 1 never stops early [default: 0.99; with --shard 1]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l capture -d 'How statistics of the activations are gathered' -r -f -a "sketch\t'The graph summarises its activations'
outputs\t'Activations are read back and decomposed on the host, as in the paper (slow)'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l target-modules -d '`all-linear` (every linear layer but the output head), a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l exclude-modules -d 'Modules to leave out: a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l checkpoint -d 'PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l names -d 'Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it' -r -f -a "weights\t'Those of the weights'
nodes\t'Those of the nodes'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l rename -d 'Rewrite module names, for example \'vit\\.layers=vit.encoder.layer\'; may be repeated' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l strip-prefix -d 'Remove this prefix from module names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l add-prefix -d 'Add this prefix to every module name' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l tokenizer -d 'tokenizer.json [default: the one beside the model, or above its folder `onnx`]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l chat-template -d 'Chat template of rows with messages: a .jinja file, or the name of one of the tokenizer\'s [default: the tokenizer\'s]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l text-field -d 'Field that holds the text of a row' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l pair-field -d 'Field that holds the second text of a pair, beside --text-field' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l text-template -d 'Text of a row, with field names in braces' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l max-length -d 'Cut rows to this many tokens; the positions in config.json are a further limit' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l batch-size -d 'Rows per batch' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l batch-tokens -d 'Tokens per batch, padding included, instead of rows; a longer row is a batch by itself' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l pad-to -d 'Pad every batch to this many tokens, and cut longer rows' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l pad-multiple -d 'Pad every batch to a multiple of this many tokens, for models that take no other lengths' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l max-batches -d 'Stop after this many batches [default: one pass over the data]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l on-bad-row -d 'What to do about a row that cannot be read or does not fit the model' -r -f -a "fail\t'End the run'
skip\t'Leave the row out; counted and listed in eva.json'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l seed -d 'Seed of everything random' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l device -d 'auto, cpu, cuda, cuda:N, or for `init` a list such as cuda:0,cuda:1 whose devices share the work; auto uses CUDA where it is available, and the summary names the device' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l encoder -d 'Encoder model that a decoder reads from [default: the one beside the model]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l embed-tokens -d 'Model that embeds tokens, for one that reads inputs_embeds [default: embed_tokens.onnx beside it]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l threads -d 'Number of threads [default: number of cores]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l ort-lib -d 'The ONNX Runtime library, or its folder [default: search the usual places]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l dtype -d 'Element type of the saved matrices' -r -f -a "f32\t'32-bit floats'
f16\t'16-bit floats'
bf16\t'bfloat16'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l base-model -d '`base_model_name_or_path` in the adapter config' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l task-type -d 'PEFT task type [default: by config.json for language models, else none; with the type of a classifier, PEFT expects the weights of its head in the adapter]' -r -f -a "CAUSAL_LM\t''
SEQ_2_SEQ_LM\t''
FEATURE_EXTRACTION\t''"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l summary -d 'Write what is known of the rows to this file, which `merge` makes an adapter of; no adapter is written unless --out is given. If it is there already, of the same run, nothing is run' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l shard -d 'Run only part I of N of the rows, from 0; auto or auto/N asks Slurm, Kubernetes or HyperQueue. --tau is then 1 unless it is given' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l checkpoint-every -d 'Keep the state of the run after every N batches, and on Ctrl-C in place of an adapter' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l blocks -d 'Run the model in blocks, one after the other, so that one at a time is in memory: their number, bytes of weights a block such as 200MB, or auto, which cuts only a model that does not fit. All batches are run' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l spill -d 'Write the hidden states between blocks, and the state after each block, to this folder instead of keeping them in memory; --resume goes on from there' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l split -d 'What several devices share' -r -f -a "rows\t'The batches: each device has the whole model'
layers\t'The layers: each device has a part of the model, and batches run through all of them'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l checkpoint-file -d 'File of the state [default: the output with .checkpoint after its name]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l out -d 'Folder to write; must not exist or be empty [default: adapter, or none with --summary]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l emit -d 'What to write besides eva.json; `splice` makes the same models later' -r -f -a "peft\t'The adapter as PEFT reads it; always written'
trainable\t'A folder `trainable` with the model, A and B as initializers'
adapter-inputs\t'A folder `adapter-inputs` with the model and an .onnx_adapter file'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l report -d 'Also write a page with the ranks, curves, notes and timings; `report` makes it later' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l dry-run -d 'Say what would be done, how long it takes and how much memory it needs, by a few batches; write nothing'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l whiten -d 'Divide every row of A by the square root of its singular value'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l trust-node-names -d 'Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l completion-only -d 'Use only the tokens of the completion or answer'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l shuffle -d 'Shuffle all rows with the seed'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l keep-order -d 'Keep the rows in order instead of batching rows of similar length'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l resume -d 'Go on from that state, if there is one; the result has the bytes of an uninterrupted run'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l force -d 'Replace files of the same names in the output folder'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l json -d 'Print eva.json instead of tables'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -s q -l quiet -d 'Print nothing but errors'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -l no-progress -d 'Show no progress bar'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l rank -d 'LoRA rank r [default: as in `init`]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l alpha -d 'LoRA alpha at rank r [default: as in `init`]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l rho -d 'Largest rank of a module, as a multiple of r [default: as in `init`]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l tau -d '|cosine| at which a component counts as converged in the report' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l min-rank -d 'Smallest rank of a module [default: as in `init`]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l ranks -d 'How ranks are allocated [default: as in `init`]' -r -f -a "eva\t'By explained variance'
uniform\t'The same rank for every module'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l target-modules -d 'Modules to adapt, of those in the summary: a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l exclude-modules -d 'Modules to leave out: a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l dtype -d 'Element type of the saved matrices' -r -f -a "f32\t'32-bit floats'
f16\t'16-bit floats'
bf16\t'bfloat16'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l base-model -d '`base_model_name_or_path` in the adapter config [default: as in `init`]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l threads -d 'Number of threads, which does not change the result [default: number of cores]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l out -d 'Folder of the adapter; must not exist or be empty [default: adapter, or none with --out-summary]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l out-summary -d 'File of the merged summary, which merges with others in turn' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l report -d 'Also write a page with the ranks, curves and notes; `report` makes it later' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l whiten -d 'Divide every row of A by the square root of its singular value [default: as in `init`]'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l allow-missing -d 'Go on without the parts that are missing, and name them'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l force -d 'Replace what is there'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -l json -d 'Print eva.json instead of tables'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -s q -l quiet -d 'Print nothing but errors'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand merge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l checkpoint -d 'PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l names -d 'Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it' -r -f -a "weights\t'Those of the weights'
nodes\t'Those of the nodes'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l rename -d 'Rewrite module names, for example \'vit\\.layers=vit.encoder.layer\'; may be repeated' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l strip-prefix -d 'Remove this prefix from module names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l add-prefix -d 'Add this prefix to every module name' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l trust-node-names -d 'Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -l json -d 'Print one JSON document instead of a summary'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l data -d 'Rows to train on: files or folders as `init` reads them; may be repeated' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l adapter -d 'PEFT folder to start from [default: initialised by EVA on the same rows]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l rank -d 'LoRA rank r; the rank budget is r times the number of modules' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l alpha -d 'LoRA alpha at rank r' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l rho -d 'Largest rank of a module, as a multiple of r' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l min-rank -d 'Smallest rank of a module' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l ranks -d 'How ranks are allocated' -r -f -a "eva\t'By explained variance'
uniform\t'The same rank for every module'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l epochs -d 'Passes over the data' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l steps -d 'Steps of the optimizer, instead of --epochs' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l lr -d 'Largest learning rate' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l schedule -d 'How the learning rate falls' -r -f -a "cosine\t'Half a cosine, to 0'
linear\t'A line, to 0'
constant\t'Not at all'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l warmup -d 'Steps in which the learning rate rises from 0' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l accumulate -d 'Batches per step' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l clip -d 'Largest norm of the gradient; 0 for any' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l weight-decay -d 'Weight decay of AdamW' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l train-modules -d 'Layers to train whole beside the adapter, by name or name ending, such as `classifier,score`; they become PEFT\'s `modules_to_save`' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l loss -d 'What is minimised [default: the loss of the class of transformers that config.json names]' -r -f -a "causal-lm\t'Each token from those before it'
seq2seq-lm\t'The tokens of the decoder of an encoder-decoder, each from those before it'
masked-lm\t'The tokens with a label, at their place'
token-classification\t'The class of each token with a label'
single-label-classification\t'The class of a row'
multi-label-classification\t'How much each class applies to a row, from 0 to 1'
regression\t'Numbers for a row'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l eval -d 'Rows to report the loss on' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l eval-every -d 'Steps between evaluations [default: only at the end]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l recompute -d 'Whether activations are computed again for the gradient instead of kept, which saves memory and takes time' -r -f -a "auto\t'Where they would fill more than half of the memory; on a GPU, once it runs out'
on\t'Always'
off\t'Never'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l save-every -d 'Steps between checkpoints, from which --resume goes on [default: only on Ctrl-C]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l keep-checkpoints -d 'Checkpoints to keep: the newest' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l target-modules -d '`all-linear` (every linear layer but the output head), a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l exclude-modules -d 'Modules to leave out: a list of name endings, or one regular expression for whole names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l checkpoint -d 'PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l names -d 'Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it' -r -f -a "weights\t'Those of the weights'
nodes\t'Those of the nodes'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l rename -d 'Rewrite module names, for example \'vit\\.layers=vit.encoder.layer\'; may be repeated' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l strip-prefix -d 'Remove this prefix from module names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l add-prefix -d 'Add this prefix to every module name' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l tokenizer -d 'tokenizer.json [default: the one beside the model, or above its folder `onnx`]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l chat-template -d 'Chat template of rows with messages: a .jinja file, or the name of one of the tokenizer\'s [default: the tokenizer\'s]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l text-field -d 'Field that holds the text of a row' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l pair-field -d 'Field that holds the second text of a pair, beside --text-field' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l text-template -d 'Text of a row, with field names in braces' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l max-length -d 'Cut rows to this many tokens; the positions in config.json are a further limit' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l batch-size -d 'Rows per batch' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l batch-tokens -d 'Tokens per batch, padding included, instead of rows; a longer row is a batch by itself' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l pad-to -d 'Pad every batch to this many tokens, and cut longer rows' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l pad-multiple -d 'Pad every batch to a multiple of this many tokens, for models that take no other lengths' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l max-batches -d 'Stop after this many batches [default: one pass over the data]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l on-bad-row -d 'What to do about a row that cannot be read or does not fit the model' -r -f -a "fail\t'End the run'
skip\t'Leave the row out; counted and listed in eva.json'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l seed -d 'Seed of everything random' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l device -d 'auto, cpu, cuda, cuda:N, or for `init` a list such as cuda:0,cuda:1 whose devices share the work; auto uses CUDA where it is available, and the summary names the device' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l encoder -d 'Encoder model that a decoder reads from [default: the one beside the model]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l embed-tokens -d 'Model that embeds tokens, for one that reads inputs_embeds [default: embed_tokens.onnx beside it]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l threads -d 'Number of threads [default: number of cores]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l ort-lib -d 'The ONNX Runtime library, or its folder [default: search the usual places]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l dtype -d 'Element type of the saved matrices' -r -f -a "f32\t'32-bit floats'
f16\t'16-bit floats'
bf16\t'bfloat16'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l base-model -d '`base_model_name_or_path` in the adapter config' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l task-type -d 'PEFT task type [default: by config.json for language models, else none; with the type of a classifier, PEFT expects the weights of its head in the adapter]' -r -f -a "CAUSAL_LM\t''
SEQ_2_SEQ_LM\t''
FEATURE_EXTRACTION\t''"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l out -d 'Folder to write; must not exist or be empty' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l emit -d 'Write the graph of a step instead of training, for programs that train with any ONNX Runtime; the rows are only those that it is checked with' -r -f -a "step-graph\t'model.onnx with its loss, gradient and optimizer, and manifest.json'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l link -d 'How the model\'s weights come to that graph' -r -f -a "copy\t'Copies, cloned by the file system where it can'
reflink\t'Clones, which need no space; refused where the file system cannot make them (Btrfs, XFS and APFS can)'
hard\t'Hard links, which need no time and no space; the onnx package (from 1.21) refuses to load such files, those of the original model too'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l report -d 'Also write a page with the loss curve; `report` makes it later' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l dry-run -d 'Say what would be done, how long it takes and how much memory it needs, by a few batches; write nothing'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l whiten -d 'Divide every row of A by the square root of its singular value'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l no-check -d 'Do not compare the gradient with the loss before the first step'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l resume -d 'Go on from the newest checkpoint in the output folder, with the same settings'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l trust-node-names -d 'Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l completion-only -d 'Use only the tokens of the completion or answer'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l shuffle -d 'Shuffle all rows with the seed'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l keep-order -d 'Keep the rows in order instead of batching rows of similar length'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l force -d 'Replace files of the same names in the output folder'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l json -d 'Print train.json instead of a summary'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -s q -l quiet -d 'Print nothing but errors'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -l no-progress -d 'Show no progress bar'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand train" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l as -d 'What the model becomes' -r -f -a "trainable\t'A and B are initializers; the weights stay as they are'
adapter-inputs\t'A and B are optional inputs, with an .onnx_adapter file for them'
merged\t'The weights include the adapter; the graph is that of the model'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l modules -d 'Modules of the adapter to use: a list of name endings, or one regular expression for whole names [default: all]' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l checkpoint -d 'PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l names -d 'Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it' -r -f -a "weights\t'Those of the weights'
nodes\t'Those of the nodes'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l rename -d 'Rewrite module names, for example \'vit\\.layers=vit.encoder.layer\'; may be repeated' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l strip-prefix -d 'Remove this prefix from module names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l add-prefix -d 'Add this prefix to every module name' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l out -d 'Folder to write; must not exist or be empty' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l link -d 'How the files with weights come into the output folder' -r -f -a "copy\t'Copies, cloned by the file system where it can'
reflink\t'Clones, which need no space; refused where the file system cannot make them (Btrfs, XFS and APFS can)'
hard\t'Hard links, which need no time and no space; the onnx package (from 1.21) refuses to load such files, those of the original model too'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l required-inputs -d 'With --as adapter-inputs: A and B must be given, for runtimes that ignore values for optional inputs (ONNX Runtime for JavaScript); their values are also written to adapter.safetensors'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l trust-node-names -d 'Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l force -d 'Replace files of the same names in the output folder'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -l json -d 'Print one JSON document instead of a summary'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand splice" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l for -d 'The program that reads the result, if it is not PEFT or ONNX Runtime' -r -f -a "vllm\t'vLLM: a PEFT folder with one scale'
tgi\t'TGI, LoRAX and SGLang: a PEFT folder with one rank and all modules of a kind'
llama.cpp\t'llama.cpp: a .gguf file'
mlx\t'mlx-lm: a folder of its own'
diffusers\t'diffusers: a folder with pytorch_lora_weights.safetensors'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l model -d 'The model that the adapter is for: with --uniform-rank and --for tgi, its modules that the adapter lacks are added, if the adapter has others of their kind; for a .gguf file, its config.json names the architecture' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l component -d 'With --for diffusers: the part of the pipeline that the adapter is for, for example unet' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l checkpoint -d 'PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such file' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l names -d 'Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into its model, and PEFT cannot load it' -r -f -a "weights\t'Those of the weights'
nodes\t'Those of the nodes'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l rename -d 'Rewrite module names, for example \'vit\\.layers=vit.encoder.layer\'; may be repeated' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l strip-prefix -d 'Remove this prefix from module names' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l add-prefix -d 'Add this prefix to every module name' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l dtype -d 'Element type of the saved matrices' -r -f -a "f32\t'32-bit floats'
f16\t'16-bit floats'
bf16\t'bfloat16'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l base-model -d '`base_model_name_or_path` in the adapter config' -r
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l task-type -d 'PEFT task type [default: by config.json for language models, else none; with the type of a classifier, PEFT expects the weights of its head in the adapter]' -r -f -a "CAUSAL_LM\t''
SEQ_2_SEQ_LM\t''
FEATURE_EXTRACTION\t''"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l force -d 'Replace what is there'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l uniform-rank -d 'One rank for all modules, padded with zeros, and one alpha: for readers without `rank_pattern`'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l one-alpha -d 'One alpha for all modules; B takes the rest of the scale: for readers that ignore `alpha_pattern`'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l fan-in-fan-out -d 'The modules store their weights as [in, out] (GPT-2), which an .onnx_adapter file does not record'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -l trust-node-names -d 'Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an nn.ModuleDict'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand convert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand report" -l html -d 'Write one self-contained HTML page, instead of drawing in the terminal' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand report" -l color -d 'Colours of the drawing' -r -f -a "auto\t'What the terminal says that it shows; none where stdout is none or NO_COLOR is set'
truecolor\t'24 bits'
256\t'256 colours'
16\t'16 colours'
none\t'No colours: a bar beside each rank'"
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand report" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand report" -l force -d 'Replace the page if it exists'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand report" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand doctor" -l ort-lib -d 'The ONNX Runtime library, or its folder [default: search the usual places]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand doctor" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand doctor" -l json -d 'Print one JSON document instead of a summary'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand doctor" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand completions" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand completions" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand completions" -s h -l help -d 'Print help'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand man" -l out -d 'Folder for the pages' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand man" -l config -d 'Take options from this TOML file, by their names; for one command in a table such as [init]' -r -F
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand man" -l force -d 'Replace pages that are there'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand man" -s v -l verbose -d 'Log decisions to stderr; -vv logs more'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand man" -s h -l help -d 'Print help'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "inspect" -d 'List the linear layers of a model and their PyTorch names, without running it'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "init" -d 'Run calibration data through a model and write an EVA-initialised LoRA adapter'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "merge" -d 'Make an adapter of what several runs of `init --summary` know, without running the model'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "check" -d 'Say whether a LoRA adapter fits a model, without running anything; the exit status is 1 if it does not'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "train" -d 'Train a LoRA adapter inside an ONNX model, without PyTorch'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "splice" -d 'Put a LoRA adapter into a model: to train it, to feed it at run time, or merged into the weights'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "convert" -d 'Convert an adapter between PEFT folders and .onnx_adapter files, or take it out of a spliced model'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "report" -d 'Show what init and train recorded: a heat map of the ranks, or a page with curves, notes and timings'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "doctor" -d 'Say what is there to run models: ONNX Runtime, its devices, CUDA; the exit status is 2 if no model can run'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "completions" -d 'Print a script with which a shell completes commands and options'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "man" -d 'Write the manual pages'
complete -c eva-onnx -n "__fish_eva_onnx_using_subcommand help; and not __fish_seen_subcommand_from inspect init merge check train splice convert report doctor completions man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'

//! A model whose linear layers have their PyTorch names, and the modules chosen among them.

use crate::adapter::Base;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::group::{Grouping, group};
use crate::hub::config::ModelConfig;
use crate::hub::conventions::{EncoderPrefix, T5_ENCODER, is_of_t5};
use crate::hub::layout::{self, Found};
use crate::linear::{self, GraphNames, Known, Layers, Linear, Rename, Skipped, Targets};
use crate::onnx::Model;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

/// How module names are found and adjusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// PyTorch checkpoint, a folder with safetensors or one such file, used to recover names by matching weights.
    pub checkpoint: Option<PathBuf>,
    /// Whether to accept names that only TorchScript's node names suggest. They may lack the name of an `nn.ModuleDict`.
    pub trust_node_names: bool,
    /// Which names of the graph stand for those of PyTorch modules, for models that PyTorch does not have. PEFT cannot
    /// load an adapter with such names.
    pub names: Option<GraphNames>,
    /// Rules `REGEX=REPLACEMENT`, applied in order to every name.
    pub rename: Vec<String>,
    /// Removed from the start of every name, before the rules.
    pub strip_prefix: Option<String>,
    /// Put before every name, after the rules.
    pub add_prefix: Option<String>,
}

impl Naming {
    /// The same, with the names that an adapter for `base` has.
    ///
    /// # Errors
    /// When others are asked for.
    pub(crate) fn with_names_of(&self, base: &Base) -> Result<Naming, Error> {
        match (self.names, base.names) {
            (Some(asked), Some(own)) if asked != own => {
                let message = format!("the adapter calls modules by the {} of the graph", own.as_str());
                Err(Error::usage(message, Some("leave out --names: the adapter says which names it has")))
            }
            (asked, own) => Ok(Naming { names: asked.or(own), ..self.clone() }),
        }
    }
}

/// Which modules get an adapter, in PEFT's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// `all-linear` (every layer but the output head), a comma-separated list of name endings, or one regular
    /// expression for whole names.
    pub target_modules: String,
    /// Modules to leave out: a comma-separated list of name endings, or one regular expression for whole names.
    pub exclude_modules: Option<String>,
}

impl Default for Selection {
    fn default() -> Self {
        Self { target_modules: "all-linear".to_owned(), exclude_modules: None }
    }
}

/// A model as it was opened, what the files beside it record, and its layers by name.
pub struct NamedModel {
    /// The model.
    pub model: Model,
    /// What the files beside it record.
    pub config: ModelConfig,
    /// Its linear layers.
    pub layers: Layers,
}

impl NamedModel {
    /// Opens a model, reads the files that describe it and names its layers. `path` is its file, or the folder that
    /// stands for it.
    ///
    /// # Errors
    /// When the model or the checkpoint cannot be read, or a rule of `naming` does not apply.
    pub fn open(path: &Path, naming: &Naming) -> Result<Self, Error> {
        if naming.names.is_some() && (naming.checkpoint.is_some() || naming.trust_node_names) {
            let hint = "leave out --names to name the modules as in PyTorch";
            return Err(Error::usage("--names takes no name of PyTorch, and so no --checkpoint", Some(hint)));
        }
        let Found { model: path, note } = layout::model(path)?;
        let in_file = |error: Error| error.in_file(&path);
        let model = Model::open(&path).map_err(|e| in_file(e.into()))?;
        let config = ModelConfig::read(&path, naming.checkpoint.as_deref());
        let mut layers = layers(&model, naming, &config).map_err(in_file)?;
        layers.notes.splice(0..0, note);
        Ok(Self { model, config, layers })
    }

    /// The path that the model was opened with.
    pub fn path(&self) -> &Path {
        self.model.path()
    }
}

const ENCODER: &str = "this encoder was exported on its own, and without its config.json the start of its module names is \
                       not known; --add-prefix adds it, for example `encoder` or `model.encoder`";

/// Finds all layers, under the names that the options ask for.
fn layers(model: &Model, naming: &Naming, config: &ModelConfig) -> Result<Layers, Error> {
    let checkpoint = naming.checkpoint.as_deref().map(Checkpoint::open).transpose()?;
    let known = Known {
        model_type: config.model_type.as_deref(),
        architecture: config.architecture.as_deref(),
        checkpoint: checkpoint.as_ref(),
        graph_names: naming.names,
        trust_node_names: naming.trust_node_names,
    };
    let mut layers = linear::find_knowing(model, &known);
    match naming.names {
        Some(names) => layers.notes.push(graph_names(names)),
        None => complete_encoder(&mut layers, naming, config)?,
    }
    let rename = Rename::new(naming.strip_prefix.as_deref(), naming.add_prefix.as_deref(), &naming.rename)?;
    rename.apply(&mut layers.linears, &mut layers.skipped)?;
    Ok(layers)
}

/// What names of the graph mean for an adapter.
pub(crate) fn graph_names(names: GraphNames) -> String {
    format!(
        "modules are called by the {} of the graph: `splice` puts the adapter into this model, but PEFT has no such modules",
        names.as_str()
    )
}

/// Adds what the names of an encoder lack that was exported on its own.
fn complete_encoder(layers: &mut Layers, naming: &Naming, config: &ModelConfig) -> Result<(), Error> {
    let modules = || layers.linears.iter().flat_map(|linear| &linear.modules).map(|part| part.module.as_str());
    let t5 = config.unknown_encoder && modules().any(is_of_t5);
    let prefix = if t5 { Some(T5_ENCODER) } else { config.encoder_prefix };
    if let Some(EncoderPrefix { prefix, .. }) =
        prefix.filter(|prefix| !modules().any(|name| name.contains(prefix.present)))
    {
        Rename::new(None, Some(prefix), &[])?.apply(&mut layers.linears, &mut layers.skipped)?;
    }
    if config.unknown_encoder && !t5 && naming.checkpoint.is_none() && naming.add_prefix.is_none() {
        layers.notes.push(ENCODER.to_owned());
    }
    Ok(())
}

/// The modules of a model that are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Pairs of an index into the layers and one into the modules of that layer.
    pub targeted: HashSet<(usize, usize)>,
    /// The chosen modules and their groups.
    pub grouping: Grouping,
    /// Names of the modules that are not chosen.
    pub untargeted: Vec<String>,
}

/// Chooses modules as PEFT does, but for those that may not run.
///
/// # Errors
/// [`linear::Error`] when none is left; with `allow_none` only when it is not the model that has none.
pub fn choose(
    linears: &[Linear],
    skipped: &[Skipped],
    selection: &Selection,
    allow_none: bool,
) -> Result<Chosen, linear::Error> {
    let exclude = selection.exclude_modules.as_deref().map(targets).transpose()?;
    let selected = linear::select(linears, skipped, &targets(&selection.target_modules)?, exclude.as_ref());
    let mut targeted: HashSet<_> = match selected {
        Err(linear::Error::NoLinears) if allow_none => HashSet::new(),
        // The output head may be all that has a name.
        Err(linear::Error::NothingTargeted { .. }) if allow_none && selection.target_modules == "all-linear" => {
            HashSet::new()
        }
        selected => selected?.into_iter().collect(),
    };
    let conditional: Vec<_> = targeted.extract_if(|(i, _)| linears[*i].conditional).collect();
    if let Some((i, part)) = conditional.iter().min().filter(|_| targeted.is_empty() && !allow_none) {
        return Err(linear::Error::Skipped {
            target: selection.target_modules.clone(),
            module: linears[*i].modules[*part].module.clone(),
            reason: Box::new(linear::Reason::Conditional { path: linears[*i].at.subgraph.join("/") }),
        });
    }
    let grouping = group(linears.iter().enumerate().map(|(i, linear)| {
        let parts = (0..linear.modules.len()).filter(|part| targeted.contains(&(i, *part)));
        (linear, parts.map(|part| &linear.modules[part]).collect::<Vec<_>>())
    }));
    let chosen: HashSet<&str> = grouping.modules.iter().map(|module| module.name.as_str()).collect();
    let usable = linears.iter().flat_map(|linear| &linear.modules).map(|part| part.module.as_str());
    let all: BTreeSet<&str> = usable.chain(skipped.iter().flat_map(|node| &node.modules).map(String::as_str)).collect();
    let untargeted = all.into_iter().filter(|name| !chosen.contains(name)).map(str::to_owned).collect();
    Ok(Chosen { targeted, grouping, untargeted })
}

/// `all-linear`, a comma-separated list of name endings, or one regular expression.
pub(crate) fn targets(text: &str) -> Result<Targets, linear::Error> {
    let values: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    match Targets::parse(&[text.to_owned()])? {
        regex @ Targets::Regex(_) => Ok(regex),
        _ => Targets::parse(&values),
    }
}

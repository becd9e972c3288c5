//! A model ready to be calibrated: its layers by name, the modules chosen, and what it is fed.

use super::{DataOptions, RuntimeOptions};
use crate::calib::{Lengths, LoadOptions, Padding};
use crate::dtype::DType;
use crate::error::Error;
use crate::feeds::{self, Embedder, Encoder, Feeds};
use crate::hub::layout;
use crate::linear::Linear;
use crate::media::SettingsFile;
use crate::named::{Chosen, NamedModel, Naming, Selection, choose};
use crate::onnx::{self, FileState, Graph, Model, Origin};
use crate::runtime::{self, Runtime, SessionOptions};
use std::iter;
use std::path::{Path, PathBuf};

/// A model ready to be calibrated.
pub struct Prepared {
    /// The model as it was opened, with all its layers.
    pub named: NamedModel,
    /// What runs instead, where the graph also holds a branch that reads a cache.
    without_cache: Option<WithoutCache>,
    /// The modules that get an adapter.
    pub chosen: Chosen,
    /// What the model is fed.
    pub feeds: Feeds,
    /// The encoder whose states the model reads, and its file.
    pub encoder: Option<Beside>,
    /// The model that makes the embeddings of tokens which the model reads, and its file.
    pub embedder: Option<Beside>,
}

/// The model without the branch that reads a cache, and the layers outside that branch.
struct WithoutCache {
    model: Model,
    linears: Vec<Linear>,
}

/// Another model, which makes what the model reads.
pub struct Beside {
    /// Its file.
    pub path: PathBuf,
    /// The model.
    pub model: Model,
}

impl Prepared {
    /// Opens the model at `path`, names its layers, chooses modules and plans what it is fed, by the models that `options`
    /// name or that are beside it.
    ///
    /// # Errors
    /// When the model cannot be read or fed, or no module is chosen.
    pub fn open(path: &Path, naming: &Naming, selection: &Selection, options: &RuntimeOptions) -> Result<Self, Error> {
        let named = NamedModel::open(path, naming)?;
        let path = named.path().to_owned();
        let in_file = |error: Error| error.in_file(&path);
        let without_cache = without_cache(&named).map_err(|e| in_file(e.into()))?;
        let running = without_cache.as_ref().map_or(&named.model, |without| &without.model);
        let linears = without_cache.as_ref().map_or(&named.layers.linears, |without| &without.linears);
        let chosen = choose(linears, &named.layers.skipped, selection, false).map_err(|e| in_file(e.into()))?;
        let feeds = Feeds::plan(&running.inputs(), named.config.cache).map_err(|e| in_file(e.into()))?;
        let has_input_mask = || running.inputs().iter().any(|input| input.name == "input_mask");
        if named.config.model_type.as_deref() == Some("xlnet") && has_input_mask() {
            return Err(in_file(feeds::Error::InputMask.into()));
        }
        let feeds = feeds.counted_from(named.config.first_position);
        let mut prepared = Self { named, without_cache, chosen, feeds, encoder: None, embedder: None };
        if prepared.feeds.needs_encoder() {
            prepared.add_encoder(&path, options.encoder.as_deref())?;
        }
        prepared.add_embedder(&path, options.embed_tokens.as_deref())?;
        Ok(prepared)
    }

    /// Adds the encoder that the decoder at `path` reads from: the file `given`, or the one beside it.
    fn add_encoder(&mut self, path: &Path, given: Option<&Path>) -> Result<(), Error> {
        let no_encoder = || Error::from(feeds::Error::NoEncoder).in_file(path);
        let encoder = given.map(Path::to_owned).or_else(|| layout::encoder(path)).ok_or_else(no_encoder)?;
        let encoder = Beside::open(encoder)?;
        let feeds = self.feeds.clone().beside(&encoder.model.inputs());
        self.feeds = feeds.map_err(|e| Error::from(e).in_file(&encoder.path))?;
        self.encoder = Some(encoder);
        Ok(())
    }

    /// Adds the model that embeds the tokens for the one at `path`, if that reads embeddings: the file `given`, or the
    /// one beside it, if there is any.
    fn add_embedder(&mut self, path: &Path, given: Option<&Path>) -> Result<(), Error> {
        let inputs = self.model().inputs();
        if self.feeds.lengths() != Lengths::Tensors || !Feeds::reads_embeddings(&inputs) {
            return match given {
                Some(_) => Err(Error::from(feeds::Error::NoEmbeddings).in_file(path)),
                None => Ok(()),
            };
        }
        let Some(file) = given.map(Path::to_owned).or_else(|| layout::embedder(path)) else { return Ok(()) };
        let embedder = Beside::open(file)?;
        let of_embedder = (&embedder.model.inputs()[..], &embedder.model.outputs()[..]);
        let feeds = self.feeds.clone().embedded_by(&inputs, of_embedder);
        self.feeds = feeds.map_err(|e| Error::from(e).in_file(&embedder.path))?;
        self.embedder = Some(embedder);
        Ok(())
    }

    /// The model that runs.
    pub fn model(&self) -> &Model {
        self.without_cache.as_ref().map_or(&self.named.model, |without| &without.model)
    }

    /// The layers of the model that runs.
    pub fn linears(&self) -> &[Linear] {
        self.without_cache.as_ref().map_or(&self.named.layers.linears, |without| &without.linears)
    }

    /// What the model is fed on a device, where its encoder and embedder, if any, are loaded too.
    ///
    /// # Errors
    /// When ONNX Runtime refuses one of them.
    pub fn feeds_on(&self, runtime: &Runtime, options: SessionOptions) -> Result<Feeds, Error> {
        let mut feeds = self.feeds.clone();
        if let Some(Beside { path, model }) = &self.encoder {
            let encoder = Encoder::load(runtime, model, options).map_err(|e| Error::from(e).in_file(path))?;
            feeds = feeds.with_encoder(encoder);
        }
        if let Some(Beside { path, model }) = &self.embedder {
            let embedder = Embedder::load(runtime, model, options).map_err(|e| Error::from(e).in_file(path))?;
            feeds = feeds.with_embedder(embedder);
        }
        Ok(feeds)
    }

    /// Checks that no file of the models was written into since they were opened. What replaced one does no harm: the old
    /// one is still read.
    ///
    /// # Errors
    /// [`runtime::Error::Changed`].
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        let beside = [&self.encoder, &self.embedder].into_iter().flatten().map(|beside| &beside.model);
        let mut models = iter::once(&self.named.model).chain(beside);
        let path = models.find_map(|model| model.file_where(|_, state| state == FileState::Overwritten));
        path.map_or(Ok(()), |path| Err(runtime::Error::Changed { path }.into()))
    }

    /// The tokens that the model knows, if that is recorded.
    pub fn vocabulary(&self) -> Option<usize> {
        let model = self.embedder.as_ref().map_or(self.model(), |embedder| &embedder.model);
        embedding_rows(model).or(self.named.config.vocab_size)
    }

    /// How rows are read and batches planned for the model.
    pub fn load_options(&self, options: &DataOptions) -> LoadOptions {
        let (config, lengths) = (&self.named.config, self.feeds.lengths());
        LoadOptions {
            tokenizer: options.tokenizer.clone().or_else(|| config.tokenizer.clone()),
            chat_template: options.chat_template.clone(),
            media: SettingsFile { path: config.preprocessor.clone(), model_type: config.model_type.clone() },
            text: options.text.clone(),
            completion_only: options.completion_only,
            max_length: config.positions.map_or(options.max_length, |most| most.min(options.max_length)),
            batch_size: options.batch_size,
            max_batches: options.max_batches,
            order: options.order,
            seed: options.seed,
            on_bad_row: options.on_bad_row,
            vocab_size: self.vocabulary(),
            shape: self.feeds.shape(),
            padding: if lengths == Lengths::Nothing { Padding::Longest } else { options.padding },
            lengths,
            reads: self.feeds.token_inputs(),
            tensors: self.feeds.tensors(),
            embedded: self.feeds.embedded(),
            decoder_start: self.feeds.needs_pairs().then(|| config.decoder_start.unwrap_or(0)),
        }
    }
}

/// Takes out the branch that reads a cache, where an input switches between that and another one.
fn without_cache(named: &NamedModel) -> Result<Option<WithoutCache>, onnx::Error> {
    let inputs = named.model.inputs();
    let switches: Vec<&str> = inputs.iter().filter(|i| i.dtype == DType::Bool).map(|i| i.name.as_str()).collect();
    let Some(model) = named.model.assuming_false(&switches)? else {
        return Ok(None);
    };
    let graph = Graph::new(&model);
    let mut linears: Vec<(usize, Linear)> = named.layers.linears.iter().filter_map(|l| inlined(&graph, l)).collect();
    linears.sort_by_key(|(node, _)| *node);
    let linears = linears.into_iter().map(|(_, linear)| linear).collect();
    drop(graph);
    Ok(Some(WithoutCache { model, linears }))
}

/// A layer of the main graph, or of an `else_branch` that became a part of it, with the number of its node there.
fn inlined(graph: &Graph<'_>, linear: &Linear) -> Option<(usize, Linear)> {
    if !linear.at.subgraph.iter().all(|step| step.ends_with(".else_branch")) {
        return None;
    }
    match graph.origin(0, &linear.output.tensor)? {
        Origin::Node(place) if place.scope == 0 => {
            let mut linear = linear.clone();
            linear.at.subgraph.clear();
            linear.input.subgraph.clear();
            Some((place.node, linear))
        }
        _ => None,
    }
}

impl Beside {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let model = Model::open(&path).map_err(|e| Error::from(e).in_file(&path))?;
        Ok(Self { path, model })
    }
}

/// Rows of the embedding that reads `input_ids`.
fn embedding_rows(model: &Model) -> Option<usize> {
    let graph = Graph::new(model);
    graph.readers(0, "input_ids").iter().find_map(|place| {
        let node = graph.node(*place);
        let is_embedding = node.op() == "Gather" && node.input(1) == Some("input_ids");
        let Some(Origin::Initializer(table)) = graph.origin(place.scope, node.input(0)?).filter(|_| is_embedding)
        else {
            return None;
        };
        usize::try_from(*table.dims().first()?).ok()
    })
}

//! What `splice` is asked for, and what it answers.

use crate::named::Naming;
use crate::output::Link;
use crate::splice::{Form, Inputs};

/// How an adapter is put into a model.
#[derive(Clone, Debug)]
pub struct SpliceOptions {
    /// What the model becomes.
    pub form: Form,
    /// Which modules of the adapter are used, as
    /// [`Selection::target_modules`](crate::options::Selection::target_modules) names them; by default, all.
    pub modules: Option<String>,
    /// How the modules of the model are named.
    pub naming: Naming,
    /// With [`Form::AdapterInputs`]: whether the inputs may be left out.
    pub inputs: Inputs,
    /// How the files with weights come into the output folder.
    pub link: Link,
    /// Whether to replace files of the same names in the output folder.
    pub force: bool,
}

impl Default for SpliceOptions {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            form: Form::Trainable,
            modules: None,
            inputs: Inputs::default(),
            naming: Naming::default(),
            link: Link::default(),
            force: false,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spliced {
    /// Modules of the adapter.
    pub modules: usize,
    /// Sum of their ranks.
    pub ranks_total: usize,
    /// Layers that changed.
    pub layers: usize,
    /// Bytes of files with weights that the folder shares with the model by hard links.
    pub linked_bytes: u64,
    /// Bytes of files with weights that were copied.
    pub copied_bytes: u64,
    /// Remarks on the names, as sentences.
    pub notes: Vec<String>,
}

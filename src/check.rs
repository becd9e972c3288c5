//! Whether an adapter fits a model, from their files and without running anything.

use crate::adapter::Base;
use crate::dtype::DType;
use crate::error::Error;
use crate::formats::peft;
use crate::hint::Hint;
use crate::linear::Linear;
use crate::named::{NamedModel, Naming};
use crate::splice::{self, Form, Saved, SavedParameter, Site};
use crate::splicing::{self, Matching};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// What is known of an adapter and a model. Serialises as the document of `eva-onnx check --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// Whether the model has every module of the adapter with the same sizes.
    pub fits: bool,
    /// Why it does not fit, as clauses.
    pub problems: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Modules of the adapter.
    pub modules: usize,
    /// Sum of their ranks.
    pub ranks_total: usize,
    /// Smallest and largest rank.
    pub ranks: [usize; 2],
    /// Element types of the adapter's matrices, where the file records them.
    pub adapter_dtypes: Vec<DType>,
    /// Element types that the layers compute in.
    pub model_dtypes: Vec<DType>,
    /// The base model that the adapter records, and the one that the model's config.json records.
    pub base_models: [Option<String>; 2],
    /// What `splice` can make of them.
    pub forms: Vec<FormChecked>,
    /// Remarks, as sentences.
    pub notes: Vec<String>,
}

/// Whether `splice` can make one form.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FormChecked {
    /// The form.
    #[serde(rename = "as")]
    pub form: Form,
    /// Why not, if it cannot.
    pub problem: Option<String>,
}

/// Compares the adapter at `adapter`, a PEFT folder or an `.onnx_adapter` file, with the model at `model`, its file or
/// the folder that stands for it: module names, sizes, base models, and the forms that [`splice`](crate::splice()) can
/// make. Nothing is run and nothing is written.
///
/// # Errors
/// When a file cannot be read. An adapter that does not fit is no error.
pub fn check(model: impl AsRef<Path>, adapter: impl AsRef<Path>, naming: &Naming) -> Result<Checked, Error> {
    let path = adapter.as_ref();
    let peft::Contents { adapter, base, saved } = splicing::read_contents(path)?;
    let naming = naming.with_names_of(&base)?;
    let named = NamedModel::open(model.as_ref(), &naming)?;
    let ranks = adapter.modules.iter().map(|module| module.rank());
    let mut checked = Checked {
        fits: true,
        problems: Vec::new(),
        hint: None,
        modules: adapter.modules.len(),
        ranks_total: ranks.clone().sum(),
        ranks: [ranks.clone().min().unwrap_or(0), ranks.max().unwrap_or(0)],
        adapter_dtypes: splicing::folder(path).and_then(|folder| peft::dtypes(&folder).ok()).unwrap_or_default(),
        model_dtypes: Vec::new(),
        base_models: [base.name.clone(), named.config.base_model.clone()],
        forms: Vec::new(),
        notes: named.layers.notes.clone(),
    };
    checked.notes.extend(other_base(&checked.base_models));
    match splicing::matching(&named, adapter, path, &naming) {
        Ok(Matching { adapter, notes }) => {
            checked.notes.extend(notes);
            let sites = splice::fit(&named.layers.linears, &adapter)?;
            checked.model_dtypes = dtypes(&sites);
            checked.forms = forms(&named, &sites, &base, &saved);
        }
        Err(error) => {
            checked.fits = false;
            checked.hint = error.hint();
            checked.problems.push(error.to_string());
        }
    }
    Ok(checked)
}

/// A remark if the two names are of different models; folders in front of a name do not count.
fn other_base(names: &[Option<String>; 2]) -> Option<String> {
    let [Some(adapter), Some(model)] = names else { return None };
    let last = |name: &str| name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
    (last(adapter) != last(model))
        .then(|| format!("the adapter was made for `{adapter}`, and config.json calls the model `{model}`"))
}

fn dtypes(sites: &[Site<'_>]) -> Vec<DType> {
    let dtypes: BTreeSet<DType> = sites.iter().map(|site| site.linear.weight.dtype).collect();
    dtypes.into_iter().collect()
}

/// What can be made of the model and an adapter for `base`, whose modules are at these sites, with `saved` parameters.
fn forms(named: &NamedModel, sites: &[Site<'_>], base: &Base, saved: &[SavedParameter]) -> Vec<FormChecked> {
    let modules = || sites.iter().flat_map(|site| site.modules.iter().flatten()).map(|module| module.module.as_str());
    let linears: &[Linear] = &named.layers.linears;
    let plain = splice::check_plain(&named.model, sites, base.weights).err();
    let plain = plain.or_else(|| Saved::find(&named.model, linears, saved).err()).map(|error| error.to_string());
    let problem = |form: Form| {
        let error = match form {
            Form::Merged => splice::check_merge(&named.model, sites).err(),
            Form::Trainable | Form::AdapterInputs => splice::check_products(sites)
                .and_then(|()| splice::check_branches(&named.model, linears, modules()))
                .err(),
        };
        plain.clone().or(error.map(|error| error.to_string()))
    };
    let all = [Form::Trainable, Form::AdapterInputs, Form::Merged];
    all.into_iter().map(|form| FormChecked { form, problem: problem(form) }).collect()
}

#[cfg(test)]
mod tests {
    use super::other_base;

    #[test]
    fn names_of_other_models() {
        let differ = |a: &str, b: &str| other_base(&[Some(a.to_owned()), Some(b.to_owned())]).is_some();
        assert!(!differ("org/Tiny", "/models/tiny/") && differ("org/tiny", "org/tiny-2"));
        assert_eq!(other_base(&[None, Some("a".to_owned())]), None);
    }
}

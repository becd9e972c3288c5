//! Where the modules of an adapter are in a model.

use super::Error;
use crate::adapter::{Adapter, AdapterModule};
use crate::linear::Linear;
use std::collections::HashMap;

/// A layer and the modules of an adapter that it computes.
#[derive(Clone, Debug, PartialEq)]
pub struct Site<'a> {
    /// The layer.
    pub linear: &'a Linear,
    /// What each of the layer's [`modules`](Linear::modules) gets.
    pub modules: Vec<Option<&'a AdapterModule>>,
}

impl Site<'_> {
    /// The first module of the adapter that the layer computes.
    pub(super) fn name(&self) -> &str {
        self.modules.iter().flatten().next().map_or("", |module| module.module.as_str())
    }
}

/// The layers that the modules of `adapter` belong to, in graph order. A module that is called several times is at
/// several layers.
///
/// # Errors
/// [`Error::Misfit`] lists every module that the model lacks or has with other sizes.
pub fn fit<'a>(linears: &'a [Linear], adapter: &'a Adapter) -> Result<Vec<Site<'a>>, Error> {
    let by_name: HashMap<&str, &AdapterModule> = adapter.modules.iter().map(|m| (m.module.as_str(), m)).collect();
    let site = |linear: &'a Linear| Site {
        linear,
        modules: linear.modules.iter().map(|part| by_name.get(part.module.as_str()).copied()).collect(),
    };
    let sites: Vec<Site<'a>> =
        linears.iter().map(site).filter(|site| site.modules.iter().any(Option::is_some)).collect();
    let mut shapes = Vec::new();
    let mut found: HashMap<&str, ()> = HashMap::new();
    for site in &sites {
        for (part, module) in site.linear.modules.iter().zip(&site.modules) {
            let Some(module) = module else { continue };
            let first = found.insert(&module.module, ()).is_none();
            let out = part.out_features(site.linear);
            let (adapter, model) = ((module.a.ncols(), module.out_features), (site.linear.in_features, out));
            if first && adapter != model {
                let ((a, b), (c, d)) = (adapter, model);
                shapes.push(format!("`{}` ({a} to {b} in the adapter, {c} to {d} in the model)", module.module));
            }
        }
    }
    let missing = adapter.modules.iter().filter(|module| !found.contains_key(module.module.as_str()));
    let unknown: Vec<String> = missing.map(|module| format!("`{}`", module.module)).collect();
    if !unknown.is_empty() || !shapes.is_empty() {
        return Err(Error::Misfit { unknown, shapes, modules: adapter.modules.len() });
    }
    match sites.iter().find(|site| site.linear.scope.first().is_some_and(|step| step.starts_with("function "))) {
        Some(site) => Err(Error::InFunction { module: site.name().to_owned(), scope: site.linear.scope[0].clone() }),
        None => Ok(sites),
    }
}

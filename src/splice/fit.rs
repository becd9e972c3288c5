//! Finding the layers of a model that the modules of an adapter belong to.

use super::error::{Error, OtherShape};
use crate::adapter::{Adapter, AdapterModule};
use crate::linear::Linear;
use std::collections::{HashMap, HashSet};

/// A layer and the modules of an adapter that it computes, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Site<'a> {
    /// The layer.
    pub linear: &'a Linear,
    /// The adapter's module for each of the layer's [`modules`](Linear::modules), where it has one.
    pub modules: Vec<Option<&'a AdapterModule>>,
}

impl Site<'_> {
    /// The name of the first module of the adapter that the layer computes.
    pub(super) fn name(&self) -> &str {
        self.modules.iter().flatten().next().map_or("", |module| module.module.as_str())
    }
}

/// The layers that the modules of `adapter` belong to, in graph order. A module that is called several times has
/// several layers.
///
/// # Errors
/// [`Error::Misfit`] lists every module that the model lacks or has with other sizes. [`Error::InFunction`] when a
/// layer is in a local function.
pub fn fit<'a>(linears: &'a [Linear], adapter: &'a Adapter) -> Result<Vec<Site<'a>>, Error> {
    let by_name: HashMap<&str, &AdapterModule> = adapter.modules.iter().map(|m| (m.module.as_str(), m)).collect();
    let site = |linear: &'a Linear| Site {
        linear,
        modules: linear.modules.iter().map(|part| by_name.get(part.module.as_str()).copied()).collect(),
    };
    let sites = linears.iter().map(site).filter(|site| site.modules.iter().any(Option::is_some));
    let sites: Vec<Site<'a>> = sites.collect();
    check_modules(&sites, adapter)?;
    sites.iter().try_for_each(|site| check_not_in_function(site.linear, site.name()))?;
    Ok(sites)
}

/// Checks that every module of the adapter is at one of the sites, with the sizes it has there.
fn check_modules(sites: &[Site<'_>], adapter: &Adapter) -> Result<(), Error> {
    let mut found: HashSet<&str> = HashSet::new();
    let mut shapes = Vec::new();
    for site in sites {
        for (part, module) in site.linear.modules.iter().zip(&site.modules) {
            let Some(module) = module else { continue };
            if !found.insert(&module.module) {
                continue;
            }
            let in_adapter = (module.a.ncols(), module.out_features);
            let in_model = (site.linear.in_features, part.out_features(site.linear));
            if in_adapter != in_model {
                shapes.push(OtherShape { module: module.module.clone(), in_adapter, in_model });
            }
        }
    }
    let names = adapter.modules.iter().map(|module| &module.module);
    let unknown: Vec<String> = names.filter(|name| !found.contains(name.as_str())).cloned().collect();
    if unknown.is_empty() && shapes.is_empty() {
        return Ok(());
    }
    Err(Error::Misfit { unknown, shapes, modules: adapter.modules.len() })
}

/// Checks that the layer sees the tensors of the main graph.
pub(super) fn check_not_in_function(linear: &Linear, module: &str) -> Result<(), Error> {
    match linear.at.subgraph.first().filter(|step| step.starts_with("function ")) {
        Some(step) => Err(Error::InFunction { module: module.to_owned(), function: step.clone() }),
        None => Ok(()),
    }
}

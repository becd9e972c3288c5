//! The settings of a processor, as its `save_pretrained` of transformers writes them.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::error::ProcessorError;
use super::kind::Kind;
use crate::regular;

/// Where the settings of a model's processor are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsFile {
    /// `preprocessor_config.json`, or `processor_config.json` with the settings of several processors.
    pub path: Option<PathBuf>,
    /// `model_type` of config.json, for files that do not name a class.
    pub model_type: Option<String>,
}

/// The settings of a processor.
pub(super) struct Settings {
    path: PathBuf,
    kind: Kind,
    fields: Map<String, Value>,
}

impl Settings {
    /// # Errors
    /// When there are none, or the file is no JSON object.
    pub(super) fn open(file: &SettingsFile, kind: Kind) -> Result<Self, ProcessorError> {
        let path = file.path.clone().ok_or(ProcessorError::NoSettings { kind })?;
        let unreadable = |message: String| ProcessorError::Unreadable { path: path.clone(), message };
        let text = regular::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
        let mut fields: Map<String, Value> = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        if let Some(Value::Object(own)) = fields.get(kind.nested()) {
            fields = own.clone();
        }
        Ok(Self { path, kind, fields })
    }

    /// The class of the processor in transformers, for example `ViTImageProcessor`: what the file says, or that of the
    /// model.
    ///
    /// # Errors
    /// When neither is known.
    pub(super) fn class(&self, of_model: Option<&str>) -> Result<String, ProcessorError> {
        let named = |field: &str| self.fields.get(field).and_then(Value::as_str);
        let (own, earlier) = (named(self.kind.class_field()), named("feature_extractor_type"));
        let earlier = earlier.map(|class| match self.kind {
            Kind::Pictures => class.replace("FeatureExtractor", "ImageProcessor"),
            Kind::Sounds => class.to_owned(),
        });
        let class = own.map(str::to_owned).or(earlier);
        let unknown = || ProcessorError::NoClass { path: self.path.clone(), kind: self.kind };
        class.or_else(|| of_model.map(str::to_owned)).ok_or_else(unknown)
    }

    /// The names of the settings that are there and on.
    pub(super) fn switched_on(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|(_, value)| **value == Value::Bool(true)).map(|(name, _)| name.as_str())
    }

    /// A setting that is there and not null.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A switch. Null is off, as for Python.
    pub(super) fn flag(&self, field: &str, default: bool) -> Result<bool, ProcessorError> {
        match self.fields.get(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.bad(field, format!("must be true or false, got {other}"))),
        }
    }

    /// A number.
    pub(super) fn number(&self, field: &str, default: f64) -> Result<f64, ProcessorError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.bad(field, format!("must be a number, got {value}")))
    }

    /// A count from 1.
    pub(super) fn count(&self, field: &str, default: usize) -> Result<usize, ProcessorError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        self.count_of(field, value)
    }

    /// A value of a setting as a count from 1 that is no larger than any real one.
    pub(super) fn count_of(&self, field: &str, value: &Value) -> Result<usize, ProcessorError> {
        const MOST: u64 = 1 << 24;
        let count = value.as_u64().filter(|count| (1..=MOST).contains(count));
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.bad(field, format!("must be a whole number from 1, got {value}")))
    }

    /// Three numbers, or one that stands for all.
    pub(super) fn channels(&self, field: &str, default: [f64; 3]) -> Result<[f64; 3], ProcessorError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let numbers: Option<Vec<f64>> = match value {
            Value::Array(values) => values.iter().map(Value::as_f64).collect(),
            one => one.as_f64().map(|one| vec![one; 3]),
        };
        let three = numbers.and_then(|numbers| numbers.try_into().ok());
        three.ok_or_else(|| self.bad(field, format!("must be three numbers or one, got {value}")))
    }

    /// A setting that cannot be followed.
    pub(super) fn bad(&self, field: &str, reason: String) -> ProcessorError {
        ProcessorError::Setting { path: self.path.clone(), field: field.to_owned(), reason, kind: self.kind }
    }

    /// A class that is not known.
    pub(super) fn unknown(&self, class: String) -> ProcessorError {
        ProcessorError::Class { path: self.path.clone(), class, kind: self.kind }
    }
}

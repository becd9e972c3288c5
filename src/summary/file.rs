//! The file: safetensors with the facts as JSON in its metadata.

use super::error::Error;
use super::facts::Facts;
use super::group::GroupSummary;
use super::sound;
use crate::pca::Summary;
use crate::regular;
use ndarray::{Array1, Array2};
use safetensors::tensor::{Dtype, Metadata, TensorView};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The key of the facts in the metadata.
const KEY: &str = "eva_onnx_summary";
/// The key of the number of the format in the facts.
const FORMAT: &str = "format";
/// The format that is written and read.
const KNOWN: u64 = 1;
/// Most bytes of the header, which holds the names of all modules.
const HEADER: u64 = 1 << 26;

/// The names of the tensors of group `g`.
fn names(g: usize) -> [String; 3] {
    ["factor", "mean", "similarity"].map(|what| format!("groups.{g}.{what}"))
}

/// Of all groups, one number each.
const ROWS: &str = "rows";
const VARIANCE: &str = "total_variance";
const NOISE: &str = "noise";

/// A tensor with its name, type, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// The bytes of a file with these facts and, in the order of [`Facts::grouping`], groups. Factors are rounded to 32 bits.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Encode`].
pub fn encode(facts: &Facts, groups: &[GroupSummary]) -> Result<Vec<u8>, Error> {
    let failed = |reason: String| Error::Encode { reason };
    let mut tensors: Vec<Stored> = Vec::new();
    let doubles = |values: &mut dyn Iterator<Item = f64>| values.flat_map(f64::to_le_bytes).collect::<Vec<u8>>();
    for (g, GroupSummary { summary, similarity }) in groups.iter().enumerate() {
        let factor: Vec<f32> = summary.factor.iter().map(|value| *value as f32).collect();
        if !factor.iter().all(|value| value.is_finite()) {
            let tensor = facts.grouping.groups.get(g).and_then(|group| group.tensors.first());
            return Err(Error::TooLarge { tensor: tensor.cloned().unwrap_or_default() });
        }
        let [of_factor, of_mean, of_similarity] = names(g);
        let (n, d) = summary.factor.dim();
        tensors.push((of_factor, Dtype::F32, vec![n, d], factor.into_iter().flat_map(f32::to_le_bytes).collect()));
        tensors.push((of_mean, Dtype::F64, vec![d], doubles(&mut summary.mean.iter().copied())));
        let values = doubles(&mut similarity.iter().copied());
        tensors.push((of_similarity, Dtype::F64, vec![similarity.len()], values));
    }
    let all = || groups.iter().map(|group| &group.summary);
    let rows = all().flat_map(|summary| summary.rows.to_le_bytes()).collect();
    tensors.push((ROWS.to_owned(), Dtype::U64, vec![groups.len()], rows));
    let variance = doubles(&mut all().map(|summary| summary.total_variance));
    tensors.push((VARIANCE.to_owned(), Dtype::F64, vec![groups.len()], variance));
    let noise = doubles(&mut all().map(|summary| summary.noise));
    tensors.push((NOISE.to_owned(), Dtype::F64, vec![groups.len()], noise));

    let mut document = serde_json::to_value(facts).map_err(|error| failed(error.to_string()))?;
    document[FORMAT] = KNOWN.into();
    let metadata = HashMap::from([(KEY.to_owned(), document.to_string())]);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).map_err(|error| failed(error.to_string()))?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, Error>>()?;
    safetensors::serialize(views, Some(metadata)).map_err(|error| failed(error.to_string()))
}

/// A summary, of which one group at a time is in memory.
#[derive(Debug)]
pub struct SummaryFile {
    path: PathBuf,
    /// What was run, and which rows were seen.
    pub facts: Facts,
    file: File,
    tensors: Metadata,
    /// Where the tensors begin.
    start: u64,
}

impl SummaryFile {
    /// Opens a file and checks everything but the numbers in its tensors.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::NotASummary`], [`Error::Format`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        let no_summary = |what: String| Error::NotASummary { path: path.to_owned(), what };
        let mut file = regular::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut header = [0; 8];
        file.read_exact(&mut header).map_err(|_| no_summary("it is not a safetensors file".to_owned()))?;
        let size = u64::from_le_bytes(header);
        if size > HEADER || size > length - 8 {
            return Err(no_summary("it is not a safetensors file".to_owned()));
        }
        let mut bytes = Vec::new();
        file.by_ref().take(size).read_to_end(&mut bytes).map_err(unreadable)?;
        let tensors: Result<Metadata, _> = serde_json::from_slice(&bytes);
        let tensors = tensors.map_err(|error| no_summary(format!("its header cannot be read: {error}")))?;
        let start = 8 + size;
        if start + tensors.data_len() as u64 != length {
            return Err(no_summary("it is cut short, or longer than its header says".to_owned()));
        }
        let text = tensors.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let text = text.ok_or_else(|| no_summary(format!("its metadata has no `{KEY}`")))?;
        let wrong = |error: serde_json::Error| no_summary(format!("its `{KEY}` cannot be read: {error}"));
        let document: Value = serde_json::from_str(text).map_err(wrong)?;
        match document[FORMAT].as_u64() {
            Some(KNOWN) => {}
            Some(found) => return Err(Error::Format { path: path.to_owned(), found, known: KNOWN }),
            None => return Err(no_summary(format!("its `{KEY}` has no `{FORMAT}`"))),
        }
        let facts: Facts = serde_json::from_value(document).map_err(wrong)?;
        sound::facts(&facts).map_err(no_summary)?;
        let opened = Self { path: path.to_owned(), facts, file, tensors, start };
        opened.check_tensors().map_err(no_summary)?;
        Ok(opened)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is known of one group.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::NotASummary`] when a number cannot be.
    pub fn group(&self, g: usize) -> Result<GroupSummary, Error> {
        let [factor, mean, similarity] = names(g);
        let shape = self.shape(&factor).map_or((0, 0), |shape| (shape[0], shape[1]));
        let values = self.bytes(&factor)?;
        let values = values.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        let values = Array2::from_shape_vec(shape, values.collect());
        let factor = values.map_err(|error| self.no_summary(error.to_string()))?;
        let number = |name: &str| self.doubles(name).map(|values| values.get(g).copied().unwrap_or_default());
        let rows = self.bytes(ROWS)?;
        let rows = rows.chunks_exact(8).nth(g).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let group = GroupSummary {
            summary: Summary {
                rows,
                mean: Array1::from_vec(self.doubles(&mean)?),
                total_variance: number(VARIANCE)?,
                factor,
                noise: number(NOISE)?,
            },
            similarity: self.doubles(&similarity)?,
        };
        let tensor = self.facts.grouping.groups[g].tensors.join("`, `");
        sound::group(&group).map_err(|what| self.no_summary(format!("{what} of `{tensor}`")))?;
        Ok(group)
    }

    fn no_summary(&self, what: String) -> Error {
        Error::NotASummary { path: self.path.clone(), what }
    }

    /// Checks that there are the tensors that the facts need, and no others.
    fn check_tensors(&self) -> Result<(), String> {
        let groups = &self.facts.grouping.groups;
        let most = 3 * self.facts.run.components;
        let mut left = self.tensors.tensors().len();
        let mut check = |name: &str, dtype: Dtype, fits: &dyn Fn(&[usize]) -> bool| {
            let info = self.tensors.info(name).ok_or_else(|| format!("it has no `{name}`"))?;
            left -= 1;
            if info.dtype == dtype && fits(&info.shape) {
                Ok(())
            } else {
                Err(format!("`{name}` has another shape or type"))
            }
        };
        for (g, group) in groups.iter().enumerate() {
            let d = group.features;
            let [factor, mean, similarity] = names(g);
            check(&factor, Dtype::F32, &|shape| matches!(*shape, [n, columns] if n <= most.min(d) && columns == d))?;
            check(&mean, Dtype::F64, &|shape| shape == [d])?;
            check(&similarity, Dtype::F64, &|shape| matches!(*shape, [n] if n <= self.facts.run.components))?;
        }
        check(ROWS, Dtype::U64, &|shape| shape == [groups.len()])?;
        check(VARIANCE, Dtype::F64, &|shape| shape == [groups.len()])?;
        check(NOISE, Dtype::F64, &|shape| shape == [groups.len()])?;
        if left > 0 { Err("it has tensors of something else".to_owned()) } else { Ok(()) }
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.info(name).map(|info| &info.shape[..])
    }

    fn doubles(&self, name: &str) -> Result<Vec<f64>, Error> {
        let bytes = self.bytes(name)?;
        let number = |bytes: &[u8]| bytes.try_into().map_or(f64::NAN, f64::from_le_bytes);
        Ok(bytes.chunks_exact(8).map(number).collect())
    }

    /// The bytes of a tensor, of which there are as many as its shape says.
    fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let (start, end) = self.tensors.info(name).map_or((0, 0), |info| info.data_offsets);
        let mut bytes = vec![0; end - start];
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(self.start + start as u64)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(bytes)
    }
}

//! Finds the checkpoint modules whose weight equals a layer's weight.

use std::collections::HashMap;

use crate::checkpoint::Checkpoint;
use crate::graph::decode::{self, ALIKE, Precision, Values};
use crate::hub::conventions::is_embedding;
use crate::linear::candidate::Candidate;
use crate::linear::layer::{Part, Slice};
use crate::linear::module::leaf;
use crate::onnx::Graph;

/// What the checkpoint says about the weight of a layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Match {
    /// It is that of these modules.
    Modules {
        /// The modules.
        parts: Vec<Part>,
        /// Whether the checkpoint stores it as [in, out].
        fan_in_fan_out: bool,
    },
    /// It equals several matrices: those of these modules.
    Several(Vec<String>),
    /// It is that of an embedding, which the layer shares.
    Embedding(String),
    /// It is a parameter that is not the weight of a module.
    Parameter(String),
    /// No matrix has these values.
    Nothing,
    /// The values cannot be decoded.
    Unreadable,
}

/// Columns compared of a quantized weight, and entries of each.
const COLUMNS: usize = 16;
const ENTRIES: usize = 256;
/// Entries compared of a weight that is not quantized.
const PROBES: usize = 4096;

/// The module whose weight a parameter of this name is, without the `base_layer` of PEFT; none for those of adapters.
fn module(name: &str) -> Option<&str> {
    let module = name.strip_suffix(".weight").filter(|module| !module.contains(".lora_"))?;
    Some(module.strip_suffix(".base_layer").unwrap_or(module))
}

/// The matrices of a checkpoint by their sizes.
pub(crate) struct WeightIndex<'c> {
    matrices: Vec<Entry<'c>>,
    by_size: HashMap<(usize, usize), Vec<usize>>,
}

struct Entry<'c> {
    name: &'c str,
    rows: usize,
    columns: usize,
    values: Values<'c>,
}

/// A range of the columns of a layer's [K, N] weight.
#[derive(Clone, Copy)]
struct Columns {
    start: usize,
    count: usize,
}

impl<'c> WeightIndex<'c> {
    pub(crate) fn new(checkpoint: &'c Checkpoint) -> WeightIndex<'c> {
        let mut index = WeightIndex { matrices: Vec::new(), by_size: HashMap::new() };
        // Matrices without elements equal everything.
        for matrix in checkpoint.matrices().filter(|matrix| matrix.rows > 0 && matrix.columns > 0) {
            let (rows, columns) = (matrix.rows, matrix.columns);
            let Some(values) = Values::of_matrix(matrix.bytes, matrix.dtype, rows, columns) else { continue };
            index.by_size.entry((rows, columns)).or_default().push(index.matrices.len());
            index.matrices.push(Entry { name: matrix.name, rows, columns, values });
        }
        index
    }

    /// Which modules have the weight of `candidate`.
    pub(crate) fn find(&self, graph: &Graph<'_>, candidate: &Candidate<'_>) -> Match {
        let (k, n) = (candidate.in_features, candidate.out_features);
        let Some(weight) = decode::weight(graph, candidate.id).filter(|weight| weight.is(k, n)) else {
            return Match::Unreadable;
        };
        let all = Columns { start: 0, count: n };
        let linear = self.equal(&weight, (n, k), |entry, row, column| entry.at(column, row), k, all);
        let mut conv = self.equal(&weight, (k, n), |entry, row, column| entry.at(row, column), k, all);
        conv.retain(|at| !linear.contains(at));
        let whole: Vec<(usize, bool)> =
            linear.into_iter().map(|at| (at, false)).chain(conv.into_iter().map(|at| (at, true))).collect();
        if !whole.is_empty() {
            return self.whole(&whole);
        }
        let parts = self.packed(&weight, k, n).or_else(|| self.slice(&weight, k, n));
        parts.map_or(Match::Nothing, |parts| Match::Modules { parts, fan_in_fan_out: false })
    }

    /// One matrix with the values of the whole weight, or several.
    fn whole(&self, found: &[(usize, bool)]) -> Match {
        let name = |at: usize| self.matrices[at].name;
        let modules: Vec<(&str, bool)> =
            found.iter().filter_map(|(at, conv)| Some((module(name(*at))?, *conv))).collect();
        let linear: Vec<&(&str, bool)> = modules.iter().filter(|(module, _)| !is_embedding(leaf(module))).collect();
        match (&linear[..], &modules[..]) {
            ([(module, conv)], _) => Match::Modules { parts: vec![Part::whole(*module)], fan_in_fan_out: *conv },
            ([], []) => Match::Parameter(name(found[0].0).to_owned()),
            ([], [(embedding, _), ..]) => Match::Embedding((*embedding).to_owned()),
            _ => Match::Several(linear.iter().map(|(module, _)| (*module).to_owned()).collect()),
        }
    }

    /// Modules whose weights follow one another in the columns, as tools pack q, k and v.
    fn packed(&self, weight: &Values<'_>, k: usize, n: usize) -> Option<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        let mut start = 0;
        while start < n {
            let sizes = self.by_size.keys().filter(|(rows, columns)| *columns == k && *rows <= n - start);
            let mut sizes: Vec<usize> = sizes.map(|(rows, _)| *rows).collect();
            sizes.sort_unstable();
            let found = sizes.into_iter().flat_map(|count| {
                let columns = Columns { start, count };
                self.equal(weight, (count, k), |entry, row, column| entry.at(column, row), k, columns)
            });
            let [at] = found.collect::<Vec<_>>()[..] else { return None };
            let entry = &self.matrices[at];
            let module = module(entry.name)?.to_owned();
            parts.push(Part { module, columns: Some((start, start + entry.rows)), slice: None });
            start += entry.rows;
        }
        Some(parts)
    }

    /// Some rows of a larger matrix, as tools split packed projections.
    fn slice(&self, weight: &Values<'_>, k: usize, n: usize) -> Option<Vec<Part>> {
        let is_embedding = |entry: &Entry<'_>| is_embedding(leaf(entry.name.trim_end_matches(".weight")));
        let columns = Columns { start: 0, count: n };
        let mut found = Vec::new();
        for entry in &self.matrices {
            if entry.columns != k || entry.rows <= n || is_embedding(entry) {
                continue;
            }
            let last = entry.rows - n;
            for start in (0..=last).filter(|start| start % n == 0 || *start == last) {
                let other = |row, column| entry.values.at(start + column, row);
                if alike(weight, other, k, columns, precision(weight, &entry.values)) {
                    found.push((entry, start));
                }
            }
        }
        let [(entry, start)] = found[..] else { return None };
        let slice = Some(Slice { start, end: start + n, of: entry.rows });
        Some(vec![Part { module: module(entry.name)?.to_owned(), columns: None, slice }])
    }

    /// Matrices of this size whose values, read by `at`, equal those columns of the weight.
    fn equal(
        &self,
        weight: &Values<'_>,
        size: (usize, usize),
        at: impl Fn(&Values<'c>, usize, usize) -> f32,
        k: usize,
        columns: Columns,
    ) -> Vec<usize> {
        let same = |index: &&usize| {
            let entry = &self.matrices[**index].values;
            alike(weight, |row, column| at(entry, row, column), k, columns, precision(weight, entry))
        };
        self.by_size.get(&size).into_iter().flatten().filter(same).copied().collect()
    }
}

fn precision(weight: &Values<'_>, entry: &Values<'_>) -> Precision {
    weight.precision().max(entry.precision())
}

/// Whether the columns of the weight have the values of `other`, as closely as their storage allows.
fn alike(
    weight: &Values<'_>,
    other: impl Fn(usize, usize) -> f32,
    k: usize,
    columns: Columns,
    precision: Precision,
) -> bool {
    let pair = |row: usize, column: usize| (weight.at(row, columns.start + column), other(row, column));
    match precision {
        Precision::Quantized => similar(pair, k, columns.count),
        _ => probes(k, columns.count).all(|(row, column)| {
            let (a, b) = pair(row, column);
            precision.allows(a, b)
        }),
    }
}

/// Entries of a [K, N] matrix: all of a small one, else some that are spread evenly.
fn probes(k: usize, n: usize) -> impl Iterator<Item = (usize, usize)> {
    let all = k * n;
    // A step without a factor in common with most sizes, so that rows and columns are all visited.
    let step = if all <= PROBES { 1 } else { (all / PROBES) | 1 };
    (0..all.min(PROBES)).map(move |probe| probe * step % all).map(move |index| (index / n, index % n))
}

/// Whether the columns point the same way, on average.
fn similar(pair: impl Fn(usize, usize) -> (f32, f32), k: usize, n: usize) -> bool {
    let count = n.min(COLUMNS);
    let rows = k.min(ENTRIES);
    let mut sum = 0.0;
    for index in 0..count {
        let column = index * n / count;
        let pairs = (0..rows).map(|row| pair(row * k / rows, column));
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for (a, b) in pairs.map(|(a, b)| (f64::from(a), f64::from(b))) {
            ab += a * b;
            aa += a * a;
            bb += b * b;
        }
        sum += if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 };
        // A cosine is at most 1, so the mean can no longer reach the threshold.
        if sum + ((count - index - 1) as f64) < ALIKE * count as f64 {
            return false;
        }
    }
    count > 0
}

//! What is made of the rows themselves, part by part: a part has the groups that share products.

use super::constants::{FLAT, ONES, ROWS_IN_PIECES};
use super::nodes::Subgraph;
use super::plan::EPSILON;
use crate::dtype::DType;
use crate::onnx::{Builder, Node};

/// What is made of the rows of one part.
pub(super) struct Part {
    /// `Y` [groups, n, l].
    pub(super) y: String,
    /// `R^T Y` [groups, d, l].
    pub(super) projection: String,
    /// The normalised rows, which stay in memory as long as nobody reads them.
    normal: String,
    /// For each piece of each row of each group, masked ones included, the inverse of the root of the mean of its
    /// squares [groups, pieces, 1].
    pub(super) inverse: String,
}

/// Nodes that nobody reads.
pub(super) struct Leaves {
    /// The last group that they need, by its place in the model.
    pub(super) order: usize,
    pub(super) nodes: Vec<Node>,
    /// Outputs that are only there for the order of execution.
    pub(super) ends: Vec<String>,
}

impl Subgraph<'_> {
    /// The products with the rows of every part, from `Q` and what the rows are shifted by in its coordinates.
    pub(super) fn parts(&mut self, q: &str, shift: &str) -> Vec<Part> {
        let each = self.split(q, "q_of").into_iter().zip(self.split(shift, "shift_of"));
        let mut weights = self.weights().into_iter();
        let ports = self.ports;
        let mut means = if self.plan.centred { self.split(&ports.mean_in, "mean_of") } else { Vec::new() }.into_iter();
        let mut part = |(i, (q, shift)): (usize, (String, String))| {
            let mut rows = self.rows(i);
            if let Some(mean) = means.next() {
                rows = self.node("Sub", &[&rows, &mean], &format!("centred_{i}"));
            }
            self.part(i, &rows, [&q, &shift], weights.next())
        };
        each.enumerate().map(&mut part).collect()
    }

    fn part(&mut self, i: usize, rows: &str, [q, shift]: [&str; 2], weight: Option<String>) -> Part {
        let uncentred = self.node("MatMul", &[rows, q], &format!("uncentred_{i}"));
        let mut y = self.node("Sub", &[&uncentred, shift], &format!("y_{i}"));
        if let Some(weight) = weight {
            y = self.node("Mul", &[&y, &weight], &format!("weighted_{i}"));
        }
        if let Some(deflate) = &self.ports.deflate {
            y = self.deflated_rows(&y, deflate);
        }
        let projection = self.transposed_product(rows, &y, &format!("projection_{i}"));
        let [normal, inverse] = self.normalised(rows, i);
        Part { y, projection, normal, inverse }
    }

    /// What the rows of `Y` are multiplied by in each part; nothing where they stay as they are.
    fn weights(&mut self) -> Vec<String> {
        let parts = self.plan.groups.len().div_ceil(self.plan.joined);
        let weight = match (&self.ports.mask, &self.ports.scale) {
            (None, None) => return Vec::new(),
            (Some(mask), None) => return vec![mask.clone(); parts],
            (None, Some(scale)) => scale.clone(),
            (Some(mask), Some(scale)) => self.node("Mul", &[mask, scale], "weight"),
        };
        let half = self.cast(&weight, DType::F16, "half_weight");
        self.split(&half, "weight_of")
    }

    /// The rows of the groups of a part, one group beside the other.
    fn rows(&mut self, part: usize) -> String {
        let plan = self.plan;
        let mut groups = Vec::new();
        let from = part * plan.joined;
        for (g, tensors) in plan.groups.iter().enumerate().skip(from).take(plan.joined) {
            let mut kept = Vec::new();
            for (t, tensor) in tensors.iter().enumerate() {
                let flat = format!("{FLAT}_{}", plan.size.features);
                let mut rows = self.node("Reshape", &[tensor, &flat], &format!("flat_{g}_{t}"));
                if let Some(indices) = self.ports.rows.get(t) {
                    rows = self.gathered(&rows, indices, 1, &format!("kept_{g}_{t}"));
                }
                kept.push(rows);
            }
            groups.push(self.all_of(kept, 1, &format!("all_{g}")));
        }
        let rows = self.all_of(groups, 0, &format!("stack_{part}"));
        let dtype = if plan.in_half() { DType::F16 } else { DType::F32 };
        self.cast(&rows, dtype, &format!("factor_{part}"))
    }

    /// Normalised pieces of rows, and the inverses of their lengths. Of the operations that read rows once, a
    /// normalisation is the fastest on a GPU.
    fn normalised(&mut self, rows: &str, part: usize) -> [String; 2] {
        let mut ones = format!("{ONES}_{}", self.plan.piece);
        if self.plan.in_half() {
            ones = self.cast(&ones, DType::F16, &format!("half_ones_{part}"));
        }
        let mut pieces = rows.to_owned();
        if self.plan.pieces() > 1 {
            let shape = format!("{ROWS_IN_PIECES}_{}", self.plan.piece);
            pieces = self.node("Reshape", &[rows, &shape], &format!("pieces_{part}"));
        }
        let [normal, inverse] = ["normal", "inverse"].map(|name| self.graph.name(&format!("{name}_{part}")));
        let node = self.graph.op("SimplifiedLayerNormalization", &[&pieces, &ones]);
        node.int("axis", -1).float("epsilon", EPSILON).outputs(vec![normal.clone(), inverse.clone()]);
        [normal, inverse]
    }

    /// Nodes that end the graph, for each part.
    pub(super) fn leaves(&self, parts: &[Part]) -> Vec<Leaves> {
        parts.iter().enumerate().map(|(i, part)| self.leaves_of(i, part)).collect()
    }

    fn leaves_of(&self, i: usize, part: &Part) -> Leaves {
        let Self { plan, ports, .. } = self;
        let from = i * plan.joined;
        let groups = from..(from + plan.joined).min(plan.groups.len());
        let mut shapes = Builder::new("", 0);
        for (tensors, names) in plan.groups[groups.clone()].iter().zip(&ports.shapes[groups.clone()]) {
            tensors.iter().zip(names).for_each(|(tensor, name)| shapes.op("Shape", &[tensor]).to(name));
        }
        let ends = [&part.projection, &part.normal].map(|result| {
            let end = format!("{result}_shape");
            shapes.op("Shape", &[result]).to(&end);
            end
        });
        let order = plan.order[groups].iter().copied().max().unwrap_or(0);
        Leaves { order, nodes: shapes.finish().0, ends: ends.into() }
    }
}

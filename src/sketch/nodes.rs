//! The nodes of a subgraph.

use super::constants::{AS_COLUMN, AS_ROWS, FLAT, ONES, PIECES, PIECES_OF_ROWS, ROWS_IN_PIECES, SUMMANDS};
use super::plan::{EPSILON, Plan};
use super::ports::Ports;
use crate::dtype::DType;
use crate::onnx::{Attribute, Constant, Node, Patch};

/// What is computed from the rows.
pub(super) struct Products {
    /// `Y^T Y` [G, l, l].
    pub(super) yy: String,
    /// `R^T Y` [G, d, l].
    pub(super) image: String,
    /// For each piece of each row of each group, masked ones included, the inverse of the root of the mean of its squares
    /// [groups, pieces, 1], part by part.
    pub(super) inverses: Vec<String>,
    /// The last results made of each part of the rows: its image and the normalised rows, which stay in memory as long
    /// as nobody reads them.
    pub(super) parts: Vec<[String; 2]>,
}

/// Adds the nodes of one subgraph to a patch.
pub(super) struct Builder<'a> {
    pub(super) patch: &'a mut Patch,
    pub(super) plan: &'a Plan,
    pub(super) opset: i64,
}

impl Builder<'_> {
    fn inner(&self, part: &str) -> String {
        format!("eva/{}/{part}", self.plan.number)
    }

    pub(super) fn node(&mut self, op: &'static str, inputs: &[&str], part: &str) -> String {
        self.node_with(op, inputs, part, vec![])
    }

    fn node_with(
        &mut self,
        op: &'static str,
        inputs: &[&str],
        part: &str,
        attributes: Vec<(&'static str, Attribute)>,
    ) -> String {
        let output = self.inner(part);
        self.node_to(op, inputs, &output, attributes);
        output
    }

    pub(super) fn node_to(
        &mut self,
        op: &'static str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        self.patch.nodes.push(new_node(op, inputs, output, attributes));
    }

    /// The transpose of each matrix of a stack.
    pub(super) fn transposed(&mut self, a: &str, part: &str) -> String {
        self.node_with("Transpose", &[a], part, vec![("perm", Attribute::Ints(vec![0, 2, 1]))])
    }

    /// `a^T b` for each pair of matrices of two stacks. ONNX Runtime makes one node of the two.
    pub(super) fn transposed_product(&mut self, a: &str, b: &str, part: &str) -> String {
        let transposed = self.transposed(a, &format!("{part}_transposed"));
        self.node("MatMul", &[&transposed, b], part)
    }

    pub(super) fn reshaped(&mut self, tensor: &str, shape: &str) -> String {
        let flat = format!("{tensor}_flat");
        self.node_to("Reshape", &[tensor, shape], &flat, vec![]);
        flat
    }

    fn cast(&mut self, tensor: &str, dtype: DType, part: &str) -> String {
        self.node_with("Cast", &[tensor], part, vec![("to", Attribute::Int(dtype.to_onnx().into()))])
    }

    pub(super) fn taken(&mut self, tensor: &str, indices: &str, axis: i64, part: &str) -> String {
        self.node_with("Gather", &[tensor, indices], part, vec![("axis", Attribute::Int(axis))])
    }

    /// The tensors behind each other along an axis.
    pub(super) fn joined(&mut self, tensors: &[&str], axis: i64, part: &str) -> String {
        self.node_with("Concat", tensors, part, vec![("axis", Attribute::Int(axis))])
    }

    pub(super) fn joined_to(&mut self, tensors: &[&str], axis: i64, output: &str) {
        self.node_to("Concat", tensors, output, vec![("axis", Attribute::Int(axis))]);
    }

    /// The sum over some axes, which are dropped.
    fn summed(&mut self, tensor: &str, axes: &[i64], part: &str) -> String {
        let mut inputs = vec![tensor];
        let mut attributes = vec![("keepdims", Attribute::Int(0))];
        let name = self.inner(&format!("{part}_axes"));
        // The axes became an input in opset 13.
        if self.opset < 13 {
            attributes.push(("axes", Attribute::Ints(axes.to_vec())));
        } else {
            self.patch.constants.push((name.clone(), Constant::I64(vec![axes.len() as i64], axes.to_vec())));
            inputs.push(&name);
        }
        self.node_with("ReduceSum", &inputs, part, attributes)
    }

    fn one_or_joined(&mut self, tensors: Vec<String>, axis: i64, part: &str) -> String {
        match <[String; 1]>::try_from(tensors) {
            Ok([one]) => one,
            Err(many) => self.joined(&many.iter().map(String::as_str).collect::<Vec<_>>(), axis, part),
        }
    }

    /// A stack in parts of as many matrices as share a product.
    fn split(&mut self, stack: &str, part: &str) -> Vec<String> {
        let sizes: Vec<i64> = self.plan.groups.chunks(self.plan.joined).map(|part| part.len() as i64).collect();
        if sizes.len() == 1 {
            return vec![stack.to_owned()];
        }
        let outputs: Vec<String> = (0..sizes.len()).map(|i| self.inner(&format!("{part}_{i}"))).collect();
        let mut inputs = vec![stack.to_owned()];
        let mut attributes = vec![("axis", Attribute::Int(0))];
        // The sizes became an input in opset 13.
        if self.opset < 13 {
            attributes.push(("split", Attribute::Ints(sizes)));
        } else {
            let name = self.inner(&format!("{part}_sizes"));
            self.patch.constants.push((name.clone(), Constant::I64(vec![sizes.len() as i64], sizes)));
            inputs.push(name);
        }
        let name = format!("{}/Split", self.inner(part));
        self.patch.nodes.push(Node { name, op: "Split", inputs, outputs: outputs.clone(), attributes });
        outputs
    }

    /// Products with the rows, part by part.
    pub(super) fn products(&mut self, ports: &Ports, unit: &str) -> Products {
        let mut shift = self.node("MatMul", &[&ports.mean_in, &ports.q], "mean_y");
        shift = self.node("Sub", &[&shift, unit], "shift");
        let mut q = ports.q.clone();
        if self.plan.in_half() {
            shift = self.cast(&shift, DType::F16, "half_shift");
            q = self.cast(&q, DType::F16, "half_q");
        }
        let parts = self.split(&q, "q_of").into_iter().zip(self.split(&shift, "shift_of"));
        let mut weights = self.weights(ports).into_iter();
        let (mut ys, mut images, mut inverses, mut last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (i, (q, shift)) in parts.enumerate() {
            let rows = self.rows(i, ports);
            let uncentred = self.node("MatMul", &[&rows, &q], &format!("uncentred_{i}"));
            let mut y = self.node("Sub", &[&uncentred, &shift], &format!("y_{i}"));
            if let Some(weight) = weights.next() {
                y = self.node("Mul", &[&y, &weight], &format!("weighted_{i}"));
            }
            let image = self.transposed_product(&rows, &y, &format!("image_{i}"));
            let [normal, inverse] = self.normalised(&rows, i);
            last.push([image.clone(), normal]);
            ys.push(y);
            images.push(image);
            inverses.push(inverse);
        }
        let mut y = self.one_or_joined(ys, 0, "y");
        if self.plan.in_half() {
            y = self.cast(&y, DType::F32, "wide_y");
        }
        let mut yy = self.transposed_product(&y, &y, "yy");
        let mut image = self.one_or_joined(images, 0, "image");
        if let Some(scale) = &ports.scale {
            let once = self.node("Div", &[&yy, scale], "yy_scaled_once");
            yy = self.node("Div", &[&once, scale], "true_yy");
            let wide = self.cast(&image, DType::F32, "wide_image");
            image = self.node("Div", &[&wide, scale], "true_image");
        }
        Products { yy, image, inverses, parts: last }
    }

    /// What the rows of `Y` are multiplied by, part by part; nothing where they stay as they are.
    fn weights(&mut self, ports: &Ports) -> Vec<String> {
        let parts = self.plan.groups.len().div_ceil(self.plan.joined);
        let weight = match (&ports.mask, &ports.scale) {
            (None, None) => return Vec::new(),
            (Some(mask), None) => return vec![mask.clone(); parts],
            (None, Some(scale)) => scale.clone(),
            (Some(mask), Some(scale)) => self.node("Mul", &[mask, scale], "weight"),
        };
        let half = self.cast(&weight, DType::F16, "half_weight");
        self.split(&half, "weight_of")
    }

    /// The rows of the groups of a part, one group beside the other.
    fn rows(&mut self, part: usize, ports: &Ports) -> String {
        let plan = self.plan;
        let mut groups = Vec::new();
        let from = part * plan.joined;
        for (g, tensors) in plan.groups.iter().enumerate().skip(from).take(plan.joined) {
            let mut kept = Vec::new();
            for (t, tensor) in tensors.iter().enumerate() {
                let flat = format!("{FLAT}_{}", plan.size.features);
                let mut rows = self.node("Reshape", &[tensor, &flat], &format!("flat_{g}_{t}"));
                if let Some(indices) = ports.rows.get(t) {
                    rows = self.taken(&rows, indices, 1, &format!("kept_{g}_{t}"));
                }
                kept.push(rows);
            }
            groups.push(self.one_or_joined(kept, 1, &format!("all_{g}")));
        }
        let rows = self.one_or_joined(groups, 0, &format!("stack_{part}"));
        let dtype = if plan.in_half() { DType::F16 } else { DType::F32 };
        self.cast(&rows, dtype, &format!("factor_{part}"))
    }

    /// Nodes that end the graph, for each part of the rows.
    pub(super) fn leaves(&self, ports: &mut Ports, parts: &[[String; 2]]) -> Vec<Leaves> {
        let plan = self.plan;
        let groups = plan.groups.iter().zip(&ports.shapes).zip(&plan.order).collect::<Vec<_>>();
        let mut leaves = Vec::new();
        for (part, groups) in parts.iter().zip(groups.chunks(plan.joined)) {
            let mut nodes = Vec::new();
            for ((tensors, shapes), _) in groups {
                let shapes = tensors.iter().zip(shapes.iter());
                nodes.extend(shapes.map(|(tensor, shape)| new_node("Shape", &[tensor], shape, vec![])));
            }
            for result in part {
                let end = format!("{result}_shape");
                nodes.push(new_node("Shape", &[result], &end, vec![]));
                ports.ends.push(end);
            }
            leaves.push(Leaves { order: groups.iter().map(|(_, order)| **order).max().unwrap_or(0), nodes });
        }
        leaves
    }

    /// Normalised pieces of rows, and the inverses of their lengths. Of the operations that read rows once, a normalisation
    /// is the fastest on a GPU.
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
        let [normal, inverse] = ["normal", "inverse"].map(|name| self.inner(&format!("{name}_{part}")));
        self.patch.nodes.push(Node {
            name: format!("{normal}/SimplifiedLayerNormalization"),
            op: "SimplifiedLayerNormalization",
            inputs: vec![pieces, ones],
            outputs: vec![normal.clone(), inverse.clone()],
            attributes: vec![("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(EPSILON))],
        });
        [normal, inverse]
    }

    /// The sum of the mean squares of the pieces of the rows of each group [G, 1].
    pub(super) fn squares(&mut self, inverses: &[String], ports: &Ports) -> String {
        let inverses = self.one_or_joined(inverses.to_vec(), 0, "inverses");
        let squared = self.node("Mul", &[&inverses, &inverses], "inverse_squares");
        let mut squares = self.node("Reciprocal", &[&squared], "mean_squares");
        if let Some(mask) = &ports.mask {
            let of_rows = format!("{PIECES_OF_ROWS}_{}", self.plan.pieces());
            squares = self.node("Reshape", &[&squares, &of_rows], "mean_squares_of_rows");
            squares = self.node("Mul", &[&squares, mask], "masked_squares");
        }
        let sum = self.summed(&squares, &[1, 2], "squares");
        self.reshaped(&sum, AS_COLUMN)
    }

    /// `a^T b` for each pair of stacks of matrices with d rows, as one row a group, end to end.
    pub(super) fn long_products(&mut self, pairs: &[(&String, &String, &str)]) -> String {
        let plan = self.plan;
        let mut products = Vec::new();
        for (a, b, part) in pairs {
            let product = if plan.pieces() > 1 {
                let [a, b] = [a, b].map(|tensor| self.once_in_pieces(tensor));
                let product = self.transposed_product(&a, &b, part);
                self.reshaped(&product, &format!("{SUMMANDS}_{}_{}", plan.pieces(), plan.columns()))
            } else {
                let product = self.transposed_product(a, b, part);
                self.reshaped(&product, AS_ROWS)
            };
            products.push(product);
        }
        let products: Vec<&str> = products.iter().map(String::as_str).collect();
        if plan.pieces() > 1 {
            let summands = self.joined(&products, 2, "summands");
            self.summed(&summands, &[1], "long_products")
        } else {
            self.joined(&products, 1, "long_products")
        }
    }

    /// A stack of matrices with each cut into pieces of its d rows.
    fn once_in_pieces(&mut self, tensor: &str) -> String {
        let pieces = format!("{tensor}_in_pieces");
        if !self.patch.nodes.iter().any(|node| node.outputs[0] == pieces) {
            self.node_to("Reshape", &[tensor, &format!("{PIECES}_{}", self.plan.piece)], &pieces, vec![]);
        }
        pieces
    }
}

fn new_node(op: &'static str, inputs: &[&str], output: &str, attributes: Vec<(&'static str, Attribute)>) -> Node {
    Node {
        name: format!("{output}/{op}"),
        op,
        inputs: inputs.iter().map(|&i| i.to_owned()).collect(),
        outputs: vec![output.to_owned()],
        attributes,
    }
}

/// Nodes that nobody reads.
pub(super) struct Leaves {
    /// The last group that they need, by its place in the model.
    pub(super) order: usize,
    pub(super) nodes: Vec<Node>,
}

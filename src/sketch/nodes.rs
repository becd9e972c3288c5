//! The nodes that the equations of a subgraph are made of.

use super::constants::{AS_ROWS, PIECES, SUMMANDS};
use super::plan::Plan;
use super::ports::Ports;
use crate::dtype::DType;
use crate::onnx::Builder;

/// One subgraph under construction.
pub(super) struct Subgraph<'a> {
    pub(super) graph: Builder,
    pub(super) plan: &'a Plan,
    pub(super) ports: &'a Ports,
}

impl<'a> Subgraph<'a> {
    pub(super) fn new(plan: &'a Plan, ports: &'a Ports, opset: i64) -> Self {
        Self { graph: Builder::new(format!("eva/{}", plan.number), opset), plan, ports }
    }

    pub(super) fn node(&mut self, op: &'static str, inputs: &[&str], part: &str) -> String {
        self.graph.op(op, inputs).output(part)
    }

    pub(super) fn node_to(&mut self, op: &'static str, inputs: &[&str], output: &str) {
        self.graph.op(op, inputs).to(output);
    }

    pub(super) fn cast(&mut self, tensor: &str, dtype: DType, part: &str) -> String {
        self.graph.cast(tensor, dtype).output(part)
    }

    /// The transpose of each matrix of a stack.
    pub(super) fn transposed(&mut self, a: &str, part: &str) -> String {
        self.graph.op("Transpose", &[a]).ints("perm", vec![0, 2, 1]).output(part)
    }

    /// `a^T b` for each pair of matrices of two stacks. ONNX Runtime makes one node of the two.
    pub(super) fn transposed_product(&mut self, a: &str, b: &str, part: &str) -> String {
        let transposed = self.transposed(a, &format!("{part}_transposed"));
        self.node("MatMul", &[&transposed, b], part)
    }

    pub(super) fn reshaped(&mut self, tensor: &str, shape: &str) -> String {
        let flat = format!("{tensor}_flat");
        self.node_to("Reshape", &[tensor, shape], &flat);
        flat
    }

    pub(super) fn gathered(&mut self, tensor: &str, indices: &str, axis: i64, part: &str) -> String {
        self.graph.op("Gather", &[tensor, indices]).int("axis", axis).output(part)
    }

    pub(super) fn concatenated(&mut self, tensors: &[&str], axis: i64, part: &str) -> String {
        self.graph.op("Concat", tensors).int("axis", axis).output(part)
    }

    pub(super) fn concatenated_to(&mut self, tensors: &[&str], axis: i64, output: &str) {
        self.graph.op("Concat", tensors).int("axis", axis).to(output);
    }

    /// The concatenation of several tensors, or the only one as it is.
    pub(super) fn all_of(&mut self, tensors: Vec<String>, axis: i64, part: &str) -> String {
        match <[String; 1]>::try_from(tensors) {
            Ok([one]) => one,
            Err(many) => self.concatenated(&many.iter().map(String::as_str).collect::<Vec<_>>(), axis, part),
        }
    }

    /// The sum over some axes, which are dropped.
    pub(super) fn summed(&mut self, tensor: &str, axes: &[i64], part: &str) -> String {
        self.graph.reduce_sum(tensor, axes, &format!("{part}_axes")).output(part)
    }

    /// A stack in parts of as many matrices as share a product.
    pub(super) fn split(&mut self, stack: &str, part: &str) -> Vec<String> {
        let sizes: Vec<i64> = self.plan.groups.chunks(self.plan.joined).map(|part| part.len() as i64).collect();
        if sizes.len() == 1 {
            return vec![stack.to_owned()];
        }
        let outputs: Vec<String> = (0..sizes.len()).map(|i| self.graph.name(&format!("{part}_{i}"))).collect();
        let split = self.graph.split(stack, 0, sizes, &format!("{part}_sizes"));
        split.named(&format!("{part}/Split")).outputs(outputs.clone());
        outputs
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
            let summands = self.concatenated(&products, 2, "summands");
            self.summed(&summands, &[1], "long_products")
        } else {
            self.concatenated(&products, 1, "long_products")
        }
    }

    /// A stack of matrices with each cut into pieces of its d rows.
    fn once_in_pieces(&mut self, tensor: &str) -> String {
        let pieces = format!("{tensor}_in_pieces");
        if !self.graph.nodes().iter().any(|node| node.outputs[0] == pieces) {
            self.node_to("Reshape", &[tensor, &format!("{PIECES}_{}", self.plan.piece)], &pieces);
        }
        pieces
    }
}

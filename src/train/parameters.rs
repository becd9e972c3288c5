//! The matrices of an adapter and the layers that are trained whole as one vector, which is what a step reads,
//! differentiates and updates.

use super::heads::Heads;
use crate::adapter::Adapter;
use crate::onnx::{Builder, Constant};
use crate::splice::{SavedParameter, a_name, b_name};
use ndarray::Array2;
use std::cmp::Reverse;

/// Where each parameter is in the vector: module by module, `A` [in, rank] and then `B` [rank, out], row by row; then the
/// heads.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    /// The tensors, in order.
    tensors: Vec<Parameter>,
    /// Layers that are trained whole.
    pub(super) heads: Heads,
}

/// A part of the vector.
#[derive(Clone, Debug)]
struct Parameter {
    /// Its name in the graph.
    name: String,
    shape: Vec<usize>,
    /// What its values are multiplied by there: for a `B` the scale of its module.
    factor: f32,
}

impl Parameter {
    fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Parameters {
    pub(crate) fn of(adapter: &Adapter, heads: Heads) -> Self {
        let matrices = adapter.modules.iter().flat_map(|module| {
            let (rank, inside) = module.a.dim();
            let (a, b) = (a_name(&module.module), b_name(&module.module));
            let a = Parameter { name: a, shape: vec![inside, rank], factor: 1.0 };
            [a, Parameter { name: b, shape: vec![rank, module.out_features], factor: module.scale() as f32 }]
        });
        let whole = heads.shapes().map(|(name, shape)| Parameter { name, shape, factor: 1.0 });
        Self { tensors: matrices.chain(whole).collect(), heads }
    }

    /// The names of the tensors in the graph, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|tensor| tensor.name.clone()).collect()
    }

    /// Where each tensor starts in the vector, its name in the graph and its shape, in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, &str, &[usize])> {
        self.tensors.iter().scan(0, |next, tensor| {
            let at = *next;
            *next += tensor.size();
            Some((at, tensor.name.as_str(), tensor.shape.as_slice()))
        })
    }

    /// Length of the vector.
    pub(crate) fn len(&self) -> usize {
        self.tensors.iter().map(Parameter::size).sum()
    }

    /// The vector of an adapter with the same modules and ranks.
    pub(crate) fn flatten(&self, adapter: &Adapter) -> Vec<f32> {
        let mut vector = Vec::with_capacity(self.len());
        for module in &adapter.modules {
            vector.extend(module.a.t().iter());
            vector.extend(module.b().t().iter());
        }
        vector.extend(self.heads.start());
        vector
    }

    /// The adapter with the matrices of the vector, and the layers trained whole.
    pub(crate) fn restore(&self, vector: &[f32], adapter: &Adapter) -> (Adapter, Vec<SavedParameter>) {
        let mut rest = vector;
        let mut next = |(rows, columns): (usize, usize)| {
            let (values, after) = rest.split_at(rows * columns);
            rest = after;
            Array2::from_shape_fn((columns, rows), |(column, row)| values[row * columns + column])
        };
        let mut adapter = adapter.clone();
        for module in &mut adapter.modules {
            let (rank, inside) = module.a.dim();
            module.a = next((inside, rank));
            module.b = Some(next((rank, module.out_features)));
        }
        (adapter, self.heads.saved(rest))
    }

    /// Nodes that take the tensors out of the vector `theta`.
    pub(crate) fn take_apart(&self, theta: &str, graph: &mut Builder) {
        let sizes = self.tensors.iter().map(|tensor| tensor.size() as i64).collect();
        let flat = self.tensors.iter().map(|Parameter { name, .. }| graph.name(&format!("{name}/flat")));
        let flat: Vec<String> = flat.collect();
        graph.split(theta, 0, sizes, "sizes").outputs(flat.clone());
        for (Parameter { name, shape, factor }, flat) in self.tensors.iter().zip(flat) {
            let flat = scaled(flat, *factor, &format!("{name}/scaled"), graph);
            let shape = Constant::ints(shape.iter().map(|size| *size as i64).collect());
            let shape = graph.constant(&format!("{name}/shape"), shape);
            graph.op("Reshape", &[&flat, &shape]).to(name);
        }
    }

    /// Nodes that join gradients of the tensors, zeros where there is none, to a vector called `to`. `place` says where in
    /// the backward pass a gradient is made.
    ///
    /// Of the nodes that another one reads, ONNX Runtime runs the last one in the file first, with all that it needs. So the
    /// first gradients of the backward pass come last here: they and what they are made of are done with before it goes on.
    pub(crate) fn join<'g>(
        &self,
        gradient: impl Fn(&str) -> Option<&'g String>,
        place: impl Fn(&str) -> Option<usize>,
        to: &str,
        graph: &mut Builder,
    ) {
        let whole = graph.constant("whole", Constant::ints(vec![-1]));
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|index| {
            let made = gradient(&self.tensors[*index].name).and_then(|name| place(name));
            Reverse(made.unwrap_or_default())
        });
        let mut parts = vec![String::new(); self.tensors.len()];
        for index in order {
            let tensor = &self.tensors[index];
            let Parameter { name, factor, .. } = tensor;
            let part = match gradient(name) {
                Some(gradient) => {
                    let flat = graph.op("Reshape", &[gradient, &whole]).output(&format!("{name}/gradient"));
                    scaled(flat, *factor, &format!("{name}/gradient/scaled"), graph)
                }
                None => {
                    let length = tensor.size();
                    graph.constant(&format!("{name}/none"), Constant::F32(vec![length as i64], vec![0.0; length]))
                }
            };
            parts[index] = part;
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        graph.op("Concat", &parts).int("axis", 0).to(to);
    }
}

/// A vector times a number.
fn scaled(vector: String, factor: f32, part: &str, graph: &mut Builder) -> String {
    if factor == 1.0 {
        return vector;
    }
    let factor = graph.constant(&format!("{part}/factor"), Constant::scalar(factor));
    graph.op("Mul", &[&vector, &factor]).output(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::AdapterModule;
    use ndarray::array;

    #[test]
    fn an_adapter_survives_its_vector() {
        let module = |name: &str, b| AdapterModule {
            module: name.to_owned(),
            a: array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
            out_features: 1,
            b,
            alpha: 2.0,
            fan_in_fan_out: false,
            magnitude: None,
        };
        let modules = vec![module("x", Some(array![[7.0, 8.0]])), module("y", None)];
        let adapter = Adapter { modules, unadapted: Vec::new() };
        let parameters = Parameters::of(&adapter, Heads::default());
        let vector = parameters.flatten(&adapter);
        assert_eq!(vector, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 7.0, 8.0, 1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 0.0, 0.0]);
        let (restored, _) = parameters.restore(&vector, &adapter);
        assert_eq!(restored.modules[0], adapter.modules[0]);
        assert_eq!(restored.modules[1].b(), adapter.modules[1].b());
    }
}

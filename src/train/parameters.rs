//! The matrices of an adapter and the layers that are trained whole as one vector, which is what a step reads,
//! differentiates and updates.

use super::heads::Heads;
use crate::adapter::Adapter;
use crate::onnx::{Builder, Constant};
use crate::splice::{SavedParameter, a_name, b_name};
use ndarray::Array2;

/// Where each parameter is in the vector: module by module, `A` [in, rank] and then `B` [rank, out], row by row; then the
/// heads.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    /// The name in the graph and the shape of each tensor, in order.
    tensors: Vec<(String, Vec<usize>)>,
    /// Layers that are trained whole.
    pub(super) heads: Heads,
}

impl Parameters {
    pub(crate) fn of(adapter: &Adapter, heads: Heads) -> Self {
        let matrices = adapter.modules.iter().flat_map(|module| {
            let (rank, inside) = module.a.dim();
            let (a, b) = (a_name(&module.module), b_name(&module.module));
            [(a, vec![inside, rank]), (b, vec![rank, module.out_features])]
        });
        Self { tensors: matrices.chain(heads.shapes()).collect(), heads }
    }

    /// The names of the tensors in the graph, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Where each tensor starts in the vector, its name in the graph and its shape, in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, &str, &[usize])> {
        self.tensors.iter().scan(0, |next, (name, shape)| {
            let at = *next;
            *next += shape.iter().product::<usize>();
            Some((at, name.as_str(), shape.as_slice()))
        })
    }

    /// Length of the vector.
    pub(crate) fn len(&self) -> usize {
        self.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
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
        let sizes = self.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() as i64).collect();
        let flat: Vec<String> = self.tensors.iter().map(|(name, _)| graph.name(&format!("{name}/flat"))).collect();
        graph.split(theta, 0, sizes, "sizes").outputs(flat.clone());
        for ((name, shape), flat) in self.tensors.iter().zip(&flat) {
            let shape = Constant::ints(shape.iter().map(|size| *size as i64).collect());
            let shape = graph.constant(&format!("{name}/shape"), shape);
            graph.op("Reshape", &[flat, &shape]).to(name);
        }
    }

    /// Nodes that join gradients of the tensors, zeros where there is none, to a vector called `to`.
    pub(crate) fn join<'g>(&self, gradient: impl Fn(&str) -> Option<&'g String>, to: &str, graph: &mut Builder) {
        let whole = graph.constant("whole", Constant::ints(vec![-1]));
        let mut parts = Vec::new();
        for (name, shape) in &self.tensors {
            let part = match gradient(name) {
                Some(gradient) => graph.op("Reshape", &[gradient, &whole]).output(&format!("{name}/gradient")),
                None => {
                    let length = shape.iter().product::<usize>();
                    graph.constant(&format!("{name}/none"), Constant::F32(vec![length as i64], vec![0.0; length]))
                }
            };
            parts.push(part);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        graph.op("Concat", &parts).int("axis", 0).to(to);
    }
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

//! The matrices of an adapter as one vector, which is what a step reads, differentiates and updates.

use crate::adapter::Adapter;
use crate::onnx::{Builder, Constant};
use crate::splice::{a_name, b_name};
use ndarray::Array2;

/// Where each matrix is in the vector: module by module, `A` [in, rank] and then `B` [rank, out], row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// The name in the graph and the shape of each matrix, in order.
    matrices: Vec<(String, [usize; 2])>,
}

impl Parameters {
    pub(crate) fn of(adapter: &Adapter) -> Self {
        let matrices = adapter.modules.iter().flat_map(|module| {
            let (rank, inside) = module.a.dim();
            let (a, b) = (a_name(&module.module), b_name(&module.module));
            [(a, [inside, rank]), (b, [rank, module.out_features])]
        });
        Self { matrices: matrices.collect() }
    }

    /// The names of the matrices in the graph, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.matrices.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Length of the vector.
    pub(crate) fn len(&self) -> usize {
        self.matrices.iter().map(|(_, [rows, columns])| rows * columns).sum()
    }

    /// The vector of an adapter with the same modules and ranks.
    pub(crate) fn flatten(&self, adapter: &Adapter) -> Vec<f32> {
        let mut vector = Vec::with_capacity(self.len());
        for module in &adapter.modules {
            vector.extend(module.a.t().iter());
            vector.extend(module.b().t().iter());
        }
        vector
    }

    /// The adapter with the matrices of the vector.
    pub(crate) fn restore(&self, vector: &[f32], adapter: &Adapter) -> Adapter {
        let mut rest = vector;
        let mut next = |[rows, columns]: [usize; 2]| {
            let (values, after) = rest.split_at(rows * columns);
            rest = after;
            Array2::from_shape_fn((columns, rows), |(column, row)| values[row * columns + column])
        };
        let mut adapter = adapter.clone();
        for (module, pair) in adapter.modules.iter_mut().zip(self.matrices.chunks_exact(2)) {
            module.a = next(pair[0].1);
            module.b = Some(next(pair[1].1));
        }
        adapter
    }

    /// Nodes that take the matrices out of the vector `theta`.
    pub(crate) fn take_apart(&self, theta: &str, graph: &mut Builder) {
        let sizes = self.matrices.iter().map(|(_, [rows, columns])| (rows * columns) as i64).collect();
        let flat: Vec<String> = self.matrices.iter().map(|(name, _)| graph.name(&format!("{name}/flat"))).collect();
        graph.split(theta, 0, sizes, "sizes").outputs(flat.clone());
        for ((name, shape), flat) in self.matrices.iter().zip(&flat) {
            let shape = Constant::ints(shape.iter().map(|size| *size as i64).collect());
            let shape = graph.constant(&format!("{name}/shape"), shape);
            graph.op("Reshape", &[flat, &shape]).to(name);
        }
    }

    /// Nodes that join gradients of the matrices, zeros where there is none, to a vector called `to`.
    pub(crate) fn join<'g>(&self, gradient: impl Fn(&str) -> Option<&'g String>, to: &str, graph: &mut Builder) {
        let whole = graph.constant("whole", Constant::ints(vec![-1]));
        let mut parts = Vec::new();
        for (name, [rows, columns]) in &self.matrices {
            let part = match gradient(name) {
                Some(gradient) => graph.op("Reshape", &[gradient, &whole]).output(&format!("{name}/gradient")),
                None => {
                    let length = rows * columns;
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
        let parameters = Parameters::of(&adapter);
        let vector = parameters.flatten(&adapter);
        assert_eq!(vector, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 7.0, 8.0, 1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 0.0, 0.0]);
        let restored = parameters.restore(&vector, &adapter);
        assert_eq!(restored.modules[0], adapter.modules[0]);
        assert_eq!(restored.modules[1].b(), adapter.modules[1].b());
    }
}

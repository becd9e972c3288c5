//! The edit that adds the subgraphs.

use super::constants::{AS_COLUMN, AS_ROWS, constants};
use super::nodes::Subgraph;
use super::parts::Leaves;
use super::plan::Plan;
use super::ports::Ports;
use crate::dtype::DType;
use crate::onnx::{Constant, Input, Output, Patch};

/// The edit that adds the subgraphs of all stacks and drops the model's own outputs.
///
/// `opset` is the version of the default operator set of the model; 7 is the oldest that works.
pub fn patch(plans: &[Plan], opset: i64) -> (Patch, Vec<Ports>) {
    let mut patch = Patch { drop_outputs: true, ..Patch::default() };
    patch.constants.push((AS_ROWS.into(), Constant::ints(vec![0, -1])));
    patch.constants.push((AS_COLUMN.into(), Constant::ints(vec![-1, 1])));
    for plan in plans {
        for (name, value) in constants(plan) {
            if !patch.constants.iter().any(|(other, _)| *other == name) {
                patch.constants.push((name, value));
            }
        }
    }
    let (mut all_ports, mut leaves) = (Vec::new(), Vec::new());
    for plan in plans {
        let (ports, more) = add_stack(&mut patch, plan, opset);
        all_ports.push(ports);
        leaves.extend(more);
    }
    leaves.sort_by_key(|leaf| std::cmp::Reverse(leaf.order));
    patch.nodes.extend(leaves.into_iter().flat_map(|leaf| leaf.nodes));
    (patch, all_ports)
}

/// Adds one subgraph, but for the nodes that end the graph.
fn add_stack(patch: &mut Patch, plan: &Plan, opset: i64) -> (Ports, Vec<Leaves>) {
    let mut ports = Ports::new(plan);
    declare_inputs(patch, plan, &ports);
    let mut subgraph = Subgraph::new(plan, &ports, opset);
    let unit = subgraph.basis();
    let products = subgraph.products(&unit);
    let sums = subgraph.sums(&products);
    let mean = subgraph.mean(&sums);
    subgraph.projection(&products, &sums, &mean);
    subgraph.statistics(&products, &sums);
    subgraph.check(&products, &sums);
    let leaves = subgraph.leaves(&products.parts);
    subgraph.graph.add_to(patch);
    ports.ends = leaves.iter().flat_map(|leaves| leaves.ends.iter().cloned()).collect();
    declare_outputs(patch, &ports);
    (ports, leaves)
}

/// The number of columns is left open: if it were known, ONNX Runtime would compute shapes when it loads the model, and
/// drop the nodes that end the graph.
fn declare_inputs(patch: &mut Patch, plan: &Plan, ports: &Ports) {
    let (g, d) = (Some(plan.groups.len() as i64), Some(plan.size.features as i64));
    let input = |name: &String, dtype, shape: Vec<Option<i64>>| Input { name: name.clone(), dtype, shape };
    patch.inputs.extend(ports.rows.iter().map(|name| input(name, DType::I64, vec![None])));
    patch.inputs.extend(ports.mask.iter().map(|name| input(name, DType::F32, vec![Some(1), None, Some(1)])));
    let one = Some(1);
    let stacked = [
        (&ports.seen, [one, one]),
        (&ports.mean_in, [one, d]),
        (&ports.q_in, [d, None]),
        (&ports.z_in, [d, None]),
        (&ports.rotation, [None, None]),
    ];
    let numbers = ports.scale.iter().chain(&ports.keep).map(|name| (name, [one, one]));
    let rows = ports.deflate.iter().map(|name| (name, [one, None]));
    let before = ports.previous.iter().map(|name| (name, [d, None]));
    let stacked = stacked.into_iter().chain(numbers).chain(rows).chain(before);
    patch.inputs.extend(stacked.map(|(name, [m, n])| input(name, DType::F32, vec![g, m, n])));
}

fn declare_outputs(patch: &mut Patch, ports: &Ports) {
    let output = |name: &String, dtype| Output { name: name.clone(), dtype: Some(dtype) };
    let floats = [&ports.q, &ports.z, &ports.mean, &ports.statistics, &ports.check];
    patch.outputs.extend(floats.map(|name| output(name, DType::F32)));
    let shapes = ports.shapes.iter().flatten().chain(&ports.ends);
    patch.outputs.extend(shapes.map(|name| output(name, DType::I64)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pca::{Precision, SketchSize};
    use crate::sketch::Rows;

    /// Two stacks whose groups alternate in the model.
    #[test]
    fn the_graph_ends_with_what_the_first_layer_needs() {
        let plan = |number: usize, features| Plan {
            number,
            groups: [0, 2].map(|layer| vec![format!("rows_of_{}", layer + number)]).into(),
            order: vec![number, 2 + number],
            rows: Rows::Masked,
            joined: 1,
            precision: Precision::F32,
            centred: false,
            late: true,
            accumulates: false,
            piece: features / 2,
            size: SketchSize { features, components: 2, width: 5 },
        };
        let (patch, ports) = patch(&[plan(0, 8), plan(1, 12)], 17);
        let read: Vec<&String> = patch.nodes.iter().flat_map(|node| &node.inputs).collect();
        let ends: Vec<_> = patch.nodes.iter().rev().take_while(|node| node.op == "Shape").collect();
        assert!(ends.len() == 12 && !ends.iter().any(|node| read.contains(&&node.outputs[0])));
        let layers = ends.iter().filter_map(|node| node.inputs[0].strip_prefix("rows_of_"));
        assert_eq!(layers.collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        let of_first: Vec<_> = ends[..3].iter().map(|node| node.inputs[0].as_str()).collect();
        assert_eq!(of_first, ["eva/0/normal_0", "eva/0/projection_0", "rows_of_0"]);
        // What a node leaves unread without ending the graph would stay in memory to the end of the run.
        let wanted = |name: &String| patch.outputs.iter().any(|output| output.name == *name);
        let outputs = patch.nodes.iter().flat_map(|node| &node.outputs);
        assert!(outputs.into_iter().all(|output| read.contains(&output) || wanted(output)));
        assert_eq!(ports.iter().map(|ports| ports.ends.len()).collect::<Vec<_>>(), [4, 4]);
    }
}

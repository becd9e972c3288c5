//! The edit that adds the subgraphs.

use super::constants::{ALL, AS_COLUMN, AS_ROWS, DIAGONALS, LAST, STATISTICS, constants};
use super::nodes::{Builder, Leaves};
use super::{Plan, Ports};
use crate::dtype::DType;
use crate::onnx::{Constant, Input, Output, Patch};

/// The edit that adds the subgraphs of all stacks and drops the model's own outputs.
///
/// `opset` is the version of the default operator set of the model; 7 is the oldest that works.
pub fn patch(plans: &[Plan], opset: i64) -> (Patch, Vec<Ports>) {
    let mut patch = Patch { drop_outputs: true, ..Patch::default() };
    patch.constants.push((AS_ROWS.into(), Constant::I64(vec![2], vec![0, -1])));
    patch.constants.push((AS_COLUMN.into(), Constant::I64(vec![2], vec![-1, 1])));
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

fn add_stack(patch: &mut Patch, plan: &Plan, opset: i64) -> (Ports, Vec<Leaves>) {
    let mut ports = Ports::new(plan);
    declare_inputs(patch, plan, &ports);
    let mut graph = Builder { patch, plan, opset };
    let last = format!("{LAST}_{}", plan.columns());

    // In one product: the parts cancel where a direction has little variance, and rounding between them would stay.
    let w = graph.joined(&[&ports.q_in, &ports.z_in], 2, "w");
    // A GPU may read it from the memory of the host; a product would do that again and again.
    let all = format!("{ALL}_{}", plan.columns());
    let rotation = if plan.late { graph.taken(&ports.rotation, &all, 1, "turn") } else { ports.rotation.clone() };
    graph.node_to("MatMul", &[&w, &rotation], &ports.q, vec![]);
    let unit = graph.taken(&rotation, &last, 1, "unit");
    let products = graph.products(&ports, &unit);
    let drift = graph.taken(&products.yy, &last, 1, "drift");
    let rows = graph.taken(&drift, &last, 2, "row_count");
    let sum = graph.taken(&products.image, &last, 2, "row_sum");
    let sum = graph.transposed(&sum, "sum");
    let before = graph.node("Mul", &[&ports.mean_in, &ports.seen], "sum_before");
    let both = graph.node("Add", &[&before, &sum], "sum_of_all");
    let all = graph.node("Add", &[&ports.seen, &rows], "all_rows");
    graph.node_to("Div", &[&both, &all], &ports.mean, vec![]);
    let moved = graph.transposed_product(&ports.mean, &drift, "moved");
    match &ports.keep {
        None => graph.node_to("Sub", &[&products.image, &moved], &ports.z, vec![]),
        Some(keep) => {
            let image = graph.node("Sub", &[&products.image, &moved], "centred_image");
            let kept = graph.node("Mul", &[&ports.z_in, keep], "kept_image");
            graph.node_to("Add", &[&image, &kept], &ports.z, vec![]);
        }
    }

    let mut pairs = vec![(&ports.q, &ports.q, "qq"), (&ports.z, &ports.z, "zz")];
    if let Some(before) = &ports.previous {
        pairs.extend([(&ports.q, before, "q_before"), (before, &ports.z, "before_z")]);
    }
    if plan.in_half() {
        pairs.push((&ports.q, &ports.z, "qz"));
    }
    let long = graph.long_products(&pairs);
    let yy = graph.reshaped(&products.yy, AS_ROWS);
    let all = graph.joined(&[&long, &yy], 1, "products");
    let taken = graph.taken(&all, &format!("{STATISTICS}_{}", plan.columns()), 1, "taken");
    let flat = graph.reshaped(&sum, AS_ROWS);
    graph.joined_to(&[&taken, &flat], 1, &ports.statistics);

    let squares = graph.squares(&products.inverses, &ports);
    if plan.in_half() {
        let diagonals = graph.taken(&ports.statistics, &format!("{DIAGONALS}_{}", plan.columns()), 1, "diagonals");
        let across = graph.transposed(&sum, "sum_transposed");
        let square = graph.node("MatMul", &[&sum, &across], "sum_squared");
        let square = graph.reshaped(&square, AS_ROWS);
        graph.joined_to(&[&squares, &diagonals, &square], 1, &ports.check);
    } else {
        graph.joined_to(&[&squares], 1, &ports.check);
    }
    let leaves = graph.leaves(&mut ports, &products.parts);

    let float = |name: &String| Output { name: name.clone(), dtype: Some(DType::F32) };
    patch.outputs.extend([&ports.q, &ports.z, &ports.mean, &ports.statistics, &ports.check].map(float));
    let shape = |name: &String| Output { name: name.clone(), dtype: Some(DType::I64) };
    patch.outputs.extend(ports.shapes.iter().flatten().chain(&ports.ends).map(shape));
    (ports, leaves)
}

/// How many columns there are is left open: what is known would let ONNX Runtime compute shapes ahead, and drop the
/// nodes that end the graph.
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
    let before = ports.previous.iter().map(|name| (name, [d, None]));
    let stacked = stacked.into_iter().chain(numbers).chain(before);
    patch.inputs.extend(stacked.map(|(name, [m, n])| input(name, DType::F32, vec![g, m, n])));
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
        assert_eq!(of_first, ["eva/0/normal_0", "eva/0/image_0", "rows_of_0"]);
        // What a node leaves unread without ending the graph would stay in memory to the end of the run.
        let wanted = |name: &String| patch.outputs.iter().any(|output| output.name == *name);
        let outputs = patch.nodes.iter().flat_map(|node| &node.outputs);
        assert!(outputs.into_iter().all(|output| read.contains(&output) || wanted(output)));
        assert_eq!(ports.iter().map(|ports| ports.ends.len()).collect::<Vec<_>>(), [4, 4]);
    }
}

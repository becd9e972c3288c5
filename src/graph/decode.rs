//! The values of constants, decoded one by one on request.

use std::borrow::Cow;

use super::constant::Walk;
use crate::dtype::DType;
use crate::onnx::{Graph, NodeId, NodeView, Tensor};

/// A matrix whose elements can be computed.
pub(crate) enum Values<'m> {
    /// Elements in row-major order.
    Stored { bytes: Cow<'m, [u8]>, dtype: DType, dims: Vec<usize> },
    /// The matrix with its axes swapped.
    Transposed(Box<Values<'m>>),
    /// `(q - zero) * scale`.
    Dequantized { integers: Box<Values<'m>>, scale: AlongAxis<'m>, zero: Option<AlongAxis<'m>> },
    /// Blocks along the first axis of a [K, N] matrix, a few bits an element.
    Blocks(Blocks<'m>),
    /// The 4-bit floats of bitsandbytes.
    Floats4 { bytes: Cow<'m, [u8]>, table: [f32; 16], absmax: Box<Values<'m>>, block: usize, k: usize, n: usize },
}

/// A scale or zero point: one, one for each index along an axis, or one for each block along it.
pub(crate) struct AlongAxis<'m> {
    values: Box<Values<'m>>,
    axis: usize,
    block: usize,
}

/// The operands of `MatMulNBits`.
pub(crate) struct Blocks<'m> {
    bytes: Cow<'m, [u8]>,
    scales: Box<Values<'m>>,
    zeros: Option<Box<Values<'m>>>,
    bits: usize,
    block: usize,
    k: usize,
    n: usize,
}

/// The values of the constant that `scope` sees as `name`; nothing if their encoding is not known.
pub(crate) fn resolve<'m>(graph: &Graph<'m>, scope: usize, name: &'m str) -> Option<Values<'m>> {
    values(&mut Walk::new(graph), scope, name)
}

/// The values of the weight of a linear layer as a [K, N] matrix; nothing if their encoding is not known.
pub(crate) fn weight<'m>(graph: &Graph<'m>, id: NodeId) -> Option<Values<'m>> {
    let (node, scope) = (graph.node(id), id.scope);
    let input = |index: usize| node.input(index).and_then(|name| resolve(graph, scope, name));
    let in_out = |values: Values<'m>| if node.flag("transB") { Values::Transposed(Box::new(values)) } else { values };
    match node.op() {
        "MatMulNBits" | "MatMulBnb4" => Values::of_blocks(graph, scope, node),
        "MatMulInteger" => Some(input(1)?.scaled(None, input(3))),
        "MatMulIntegerToFloat" => Some(input(1)?.scaled(input(3), input(5))),
        "DynamicQuantizeMatMul" => Some(input(1)?.scaled(input(2), input(3))),
        "QLinearMatMul" | "QGemm" => Some(in_out(input(3)?.scaled(input(4), input(5)))),
        "QAttention" => Some(input(1)?.scaled(input(4), input(7))),
        _ => Some(in_out(input(1)?)),
    }
}

fn values<'m>(walk: &mut Walk<'_, 'm>, scope: usize, name: &'m str) -> Option<Values<'m>> {
    let graph = walk.graph;
    let operand = walk.operand(scope, name)?;
    let mut values = stored(operand.tensor)?;
    let mut nodes = operand.nodes.into_iter().rev();
    while let Some(id) = nodes.next() {
        let node = graph.node(id);
        values = match node.op() {
            "Identity" | "Cast" => values,
            "Transpose" => transposed(values, node.ints("perm"))?,
            // Only a pair with the dequantization gives back the values that were quantized.
            "QuantizeLinear" => {
                nodes.next().filter(|next| graph.node(*next).op() == "DequantizeLinear")?;
                values
            }
            "DequantizeLinear" => dequantized(walk, id, values)?,
            _ => return None,
        };
    }
    Some(values)
}

fn transposed<'m>(values: Values<'m>, perm: Option<&[i64]>) -> Option<Values<'m>> {
    match perm {
        None | Some([1, 0]) => Some(Values::Transposed(Box::new(values))),
        Some(perm) => perm.iter().copied().eq(0..perm.len() as i64).then_some(values),
    }
}

/// What the `DequantizeLinear` at `id` makes of `integers`.
fn dequantized<'m>(walk: &mut Walk<'_, 'm>, id: NodeId, integers: Values<'m>) -> Option<Values<'m>> {
    let node = walk.graph.node(id);
    let axis = node.int("axis").unwrap_or(1);
    let axis = if axis < 0 { axis + 2 } else { axis };
    let block = node.int("block_size").unwrap_or(0);
    let (axis, block) = (usize::try_from(axis).ok()?, usize::try_from(block).ok()?);
    let mut along_axis = |name| {
        let values = Box::new(values(walk, id.scope, name)?);
        Some(AlongAxis { values, axis, block })
    };
    let scale = along_axis(node.input(1)?)?;
    let zero = match node.input(2) {
        Some(name) => Some(along_axis(name)?),
        None => None,
    };
    Some(Values::Dequantized { integers: Box::new(integers), scale, zero })
}

fn stored(tensor: Tensor<'_>) -> Option<Values<'_>> {
    let dtype = Some(tensor.dtype()).filter(|dtype| dtype.is_decodable())?;
    let dims: Option<Vec<usize>> = tensor.dims().iter().map(|size| usize::try_from(*size).ok()).collect();
    Some(Values::Stored { bytes: tensor.bytes()?, dtype, dims: dims? })
}

impl<'m> Values<'m> {
    /// The values of a matrix in row-major order; nothing if its type cannot be decoded.
    pub(crate) fn of_matrix(bytes: &'m [u8], dtype: DType, rows: usize, columns: usize) -> Option<Values<'m>> {
        let bytes = Cow::Borrowed(bytes);
        dtype.is_decodable().then(|| Values::Stored { bytes, dtype, dims: vec![rows, columns] })
    }

    /// The [K, N] matrix of a `MatMulNBits` or `MatMulBnb4`.
    pub(crate) fn of_blocks(graph: &Graph<'m>, scope: usize, node: NodeView<'m>) -> Option<Values<'m>> {
        let size = |name| node.int(name).and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        let (k, n, block) = (size("K")?, size("N")?, size("block_size")?);
        let Values::Stored { bytes, .. } = resolve(graph, scope, node.input(1)?)? else { return None };
        let scales = Box::new(resolve(graph, scope, node.input(2)?)?);
        if node.op() == "MatMulBnb4" {
            let table = if node.int("quant_type") == Some(0) { FP4 } else { NF4 };
            return Some(Values::Floats4 { bytes, table, absmax: scales, block, k, n });
        }
        let bits = size("bits").or(Some(4)).filter(|bits| [2, 4, 8].contains(bits) && node.input(4).is_none())?;
        let zeros = match node.input(3) {
            Some(zeros) => Some(Box::new(resolve(graph, scope, zeros)?)),
            None => None,
        };
        Some(Values::Blocks(Blocks { bytes, scales, zeros, bits, block, k, n }))
    }

    /// `(q - zero) * scale` with one scale for the matrix or one for each of its columns.
    pub(crate) fn scaled(self, scale: Option<Values<'m>>, zero: Option<Values<'m>>) -> Values<'m> {
        let parameter = |values| AlongAxis { values: Box::new(values), axis: 1, block: 0 };
        let one =
            || Values::Stored { bytes: Cow::Owned(1f32.to_le_bytes().to_vec()), dtype: DType::F32, dims: Vec::new() };
        Values::Dequantized {
            integers: Box::new(self),
            scale: parameter(scale.unwrap_or_else(one)),
            zero: zero.map(parameter),
        }
    }

    /// Whether the values are those of the PyTorch parameter up to rounding to the element type.
    pub(crate) fn precision(&self) -> Precision {
        match self {
            Values::Stored { dtype: DType::F32 | DType::F64, .. } => Precision::Exact,
            Values::Stored { dtype: DType::F16, .. } => Precision::Half,
            Values::Stored { dtype: DType::BF16, .. } => Precision::Brain,
            Values::Transposed(values) => values.precision(),
            _ => Precision::Quantized,
        }
    }

    /// Element (`row`, `column`); indices must be below the matrix's sizes.
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        match self {
            Values::Stored { bytes, dtype, dims } => {
                let index = row * dims.last().copied().unwrap_or(1) + column;
                dtype.read(bytes, index).unwrap_or(0.0)
            }
            Values::Transposed(values) => values.at(column, row),
            Values::Dequantized { integers, scale, zero } => {
                let zero = zero.as_ref().map_or(0.0, |zero| zero.at(row, column));
                (integers.at(row, column) - zero) * scale.at(row, column)
            }
            Values::Blocks(blocks) => blocks.at(row, column),
            Values::Floats4 { bytes, table, absmax, block, k, .. } => {
                let index = column * k + row;
                let byte = bytes.get(index / 2).copied().unwrap_or(0);
                let code = if index.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
                table[usize::from(code)] * absmax.at(0, index / block)
            }
        }
    }

    /// Whether the matrix is known to have these sizes.
    pub(crate) fn is(&self, rows: usize, columns: usize) -> bool {
        match self {
            Values::Stored { dims, .. } => dims[..] == [rows, columns],
            Values::Transposed(values) => values.is(columns, rows),
            Values::Dequantized { integers, .. } => integers.is(rows, columns),
            Values::Blocks(Blocks { k, n, .. }) | Values::Floats4 { k, n, .. } => (*k, *n) == (rows, columns),
        }
    }
}

impl AlongAxis<'_> {
    fn at(&self, row: usize, column: usize) -> f32 {
        let index = [row, column][self.axis.min(1)];
        let Values::Stored { dims, .. } = &*self.values else { return self.values.at(0, index) };
        match dims[..] {
            [] | [1] => self.values.at(0, 0),
            [_, _] if self.block > 0 && self.axis == 0 => self.values.at(row / self.block, column),
            [_, _] if self.block > 0 => self.values.at(row, column / self.block),
            _ => self.values.at(0, index),
        }
    }
}

impl Blocks<'_> {
    fn at(&self, row: usize, column: usize) -> f32 {
        let blocks = self.k.div_ceil(self.block);
        let block = column * blocks + row / self.block;
        let code = bits(&self.bytes, block * self.block + row % self.block, self.bits);
        let zero = match self.zeros.as_deref() {
            None => f32::from(1u8 << (self.bits - 1)),
            Some(Values::Stored { bytes, dtype: DType::U8, .. }) => {
                let padded = blocks.div_ceil(8 / self.bits) * (8 / self.bits);
                f32::from(bits(bytes, column * padded + row / self.block, self.bits))
            }
            Some(zeros) => zeros.at(0, block),
        };
        (f32::from(code) - zero) * self.scales.flat(block)
    }
}

impl Values<'_> {
    /// Element `index` of a stored tensor of any shape.
    fn flat(&self, index: usize) -> f32 {
        match self {
            Values::Stored { bytes, dtype, .. } => dtype.read(bytes, index).unwrap_or(0.0),
            values => values.at(0, index),
        }
    }
}

/// Element `index` of a stream of `bits` bits each, lowest bits first.
fn bits(bytes: &[u8], index: usize, bits: usize) -> u8 {
    let first = index * bits;
    let byte = bytes.get(first / 8).copied().unwrap_or(0);
    (byte >> (first % 8)) & (u8::MAX >> (8 - bits))
}

/// How closely values agree with the PyTorch parameter that they were converted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Precision {
    /// To the bit.
    Exact,
    /// To half a unit in the last place of f16.
    Half,
    /// To half a unit in the last place of bf16.
    Brain,
    /// Only by direction.
    Quantized,
}

impl Precision {
    /// Whether `a` and `b` can be one number that was rounded at most twice; of quantized values only equal ones.
    pub(crate) fn allows(self, a: f32, b: f32) -> bool {
        // Two roundings of half a unit in the last place each; numbers too small for f16 have a fixed distance instead.
        let (relative, absolute) = match self {
            Precision::Half => (f32::powi(2.0, -10), f32::powi(2.0, -24)),
            Precision::Brain => (f32::powi(2.0, -7), 0.0),
            Precision::Exact | Precision::Quantized => (0.0, 0.0),
        };
        (a - b).abs() <= relative * a.abs().max(b.abs()) + absolute
    }
}

/// Smallest mean cosine between the columns of a quantized weight and those of the original parameter.
pub(crate) const ALIKE: f64 = 0.97;

/// The quantiles of a normal distribution that NF4 stands for (Dettmers et al. 2023, appendix E).
pub(crate) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The 4-bit floats of bitsandbytes: a sign, then a code of three bits.
pub(crate) const FP4: [f32; 16] = {
    let positive = [0.0, 0.005_208_333_5, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25];
    let mut table = [0.0; 16];
    let mut code = 0;
    while code < 8 {
        table[code] = positive[code];
        table[code + 8] = -positive[code];
        code += 1;
    }
    table
};

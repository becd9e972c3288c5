//! Products with weights of few bits, which are frozen: `g W` with the weight `W` [n, k] as numbers.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use super::products::flat;
use crate::dtype::DType;
use crate::graph::decode::{FP4, NF4};
use crate::onnx::{Attribute, Constant, NodeView};

/// The operator set in which `DequantizeLinear` takes blocks and types of 4 bits.
const BLOCKS: i64 = 21;
/// The operator set in which `DequantizeLinear` takes scales of 16 bits.
const HALF_SCALES: i64 = 19;

const UNUSUAL: Unsupported = Unsupported::Form("in this layout");

/// The sizes of a weight in blocks along k.
#[derive(Clone, Copy)]
struct Layout {
    n: i64,
    k: i64,
    block: i64,
}

impl Layout {
    fn of(node: NodeView<'_>) -> Result<Self, Unsupported> {
        let size = |name: &str| node.int(name).filter(|size| *size > 0).ok_or(UNUSUAL);
        Ok(Self { n: size("N")?, k: size("K")?, block: size("block_size")? })
    }

    /// Blocks of a row.
    fn blocks(self) -> i64 {
        self.k.div_euclid(self.block) + i64::from(self.k % self.block != 0)
    }
}

/// `y = x W^T` with 4 or 8 bits a weight, a scale and a zero point a block.
pub(super) fn matmul_n_bits<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let layout = Layout::of(node)?;
    let dtype = match node.int("bits").unwrap_or(4) {
        4 => DType::U4,
        8 => DType::U8,
        _ => return Err(UNUSUAL),
    };
    if node.input(4).is_some() || tape.wants(node, 2) {
        return Err(UNUSUAL);
    }
    let points = zero_points(tape, node, dtype, [layout.n as usize, layout.blocks() as usize]).ok_or(UNUSUAL)?;
    let weight = if tape.opset() >= BLOCKS && layout.k % layout.block == 0 {
        in_blocks(tape, node, layout, dtype, points)?
    } else {
        row_by_row(tape, node, layout, dtype, points)?
    };
    product(tape, node, g, &weight)
}

/// The gradient `g W`.
fn product<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str, weight: &str) -> Operands {
    let x = input(node, 0)?;
    let rank = tape.rank(x)?;
    let rows = flat(tape, g, rank);
    let product = tape.op("MatMul", &[&rows, weight], &[]);
    Ok(vec![Some(if rank == 2 { product } else { tape.like(&product, x) })])
}

/// The weight by a `DequantizeLinear` of blocks. The stored bytes are those of a tensor of 4 or 8 bits, so they are read
/// where they are.
fn in_blocks<'a>(
    tape: &mut Tape<'a>,
    node: NodeView<'a>,
    Layout { n, k, block }: Layout,
    dtype: DType,
    points: Vec<u8>,
) -> Result<String, Unsupported> {
    let weight =
        tape.stored(node, 1).and_then(|tensor| Constant::reinterpreted(&tensor, dtype, vec![n, k])).ok_or(UNUSUAL)?;
    let points = if dtype == DType::U4 { packed(&points) } else { points };
    let weight = tape.constant("weight", weight);
    let points = tape.constant("zero_points", Constant::Bytes(dtype, vec![n, k / block], points));
    let shape = tape.ints(&[n, k / block]);
    let scales = tape.op("Reshape", &[input(node, 2)?, &shape], &[]);
    let layout = [("axis", Attribute::Int(1)), ("block_size", Attribute::Int(block))];
    Ok(tape.op("DequantizeLinear", &[&weight, &scales, &points], &layout))
}

/// The weight by a `DequantizeLinear` with a scale a row, where each block is a row of 8 bits a weight. Weights of 4 bits
/// become a copy with 8.
fn row_by_row<'a>(
    tape: &mut Tape<'a>,
    node: NodeView<'a>,
    layout: Layout,
    dtype: DType,
    points: Vec<u8>,
) -> Result<String, Unsupported> {
    let Layout { n, k, block } = layout;
    let (rows, padded) = (n * layout.blocks(), layout.blocks() * block);
    let stored = tape.stored(node, 1).ok_or(UNUSUAL)?;
    let weight = if dtype == DType::U8 {
        Constant::reinterpreted(&stored, dtype, vec![rows, block])
    } else {
        let bytes = stored.bytes().filter(|bytes| bytes.len() as i64 * 2 == rows * block);
        let low_first = |byte: &u8| [byte & 15, byte >> 4];
        bytes.map(|bytes| Constant::Bytes(DType::U8, vec![rows, block], bytes.iter().flat_map(low_first).collect()))
    };
    let weight = tape.constant("weight", weight.ok_or(UNUSUAL)?);
    let points = tape.constant("zero_points", Constant::Bytes(DType::U8, vec![rows], points));
    let scales = input(node, 2)?;
    let wanted = tape.dtype(scales)?;
    let narrow = wanted != DType::F32 && tape.opset() < HALF_SCALES;
    let shape = tape.ints(&[rows]);
    let mut scales = tape.op("Reshape", &[scales, &shape], &[]);
    if narrow {
        scales = tape.cast(&scales, DType::F32);
    }
    let mut weight = tape.op("DequantizeLinear", &[&weight, &scales, &points], &[("axis", Attribute::Int(0))]);
    if narrow {
        weight = tape.cast(&weight, wanted);
    }
    let shape = tape.ints(&[n, padded]);
    let weight = tape.op("Reshape", &[&weight, &shape], &[]);
    if padded == k {
        return Ok(weight);
    }
    let [from, to, axis] = [0, k, 1].map(|value| tape.ints(&[value]));
    Ok(tape.op("Slice", &[&weight, &from, &to, &axis], &[]))
}

/// The zero points of all blocks, row by row, a byte each. In the operator, those of a row begin with a new byte.
fn zero_points<'a>(tape: &Tape<'a>, node: NodeView<'a>, dtype: DType, [n, blocks]: [usize; 2]) -> Option<Vec<u8>> {
    let count = n * blocks;
    if node.input(3).is_none() {
        return Some(vec![if dtype == DType::U4 { 8 } else { 128 }; count]);
    }
    let stored = tape.stored(node, 3).filter(|tensor| tensor.dtype() == DType::U8)?;
    let bytes = stored.bytes()?;
    let row = if dtype == DType::U4 { blocks.div_ceil(2) } else { blocks };
    if bytes.len() != n * row {
        return None;
    }
    let point = |index: usize| {
        let (at, block) = (index / blocks, index % blocks);
        if dtype == DType::U8 { bytes[index] } else { (bytes[at * row + block / 2] >> (4 * (block % 2))) & 15 }
    };
    Some((0..count).map(point).collect())
}

/// Two values of 4 bits a byte, the first in the lower half.
fn packed(values: &[u8]) -> Vec<u8> {
    values.chunks(2).map(|pair| pair[0] | (pair.get(1).copied().unwrap_or(0) << 4)).collect()
}

/// `y = x W^T` with a float of 4 bits of bitsandbytes a weight, and the largest absolute value a block.
pub(super) fn matmul_bnb4<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let Layout { n, k, block } = Layout::of(node)?;
    let count = n.checked_mul(k).filter(|count| count % block == 0 && count % 2 == 0).ok_or(UNUSUAL)?;
    let table = match node.int("quant_type") {
        Some(0) => FP4,
        Some(1) => NF4,
        _ => return Err(UNUSUAL),
    };
    let stored = tape.stored(node, 1).ok_or(UNUSUAL)?;
    let bytes = stored.bytes().filter(|bytes| bytes.len() as i64 * 2 == count).ok_or(UNUSUAL)?;
    let codes = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect();
    let codes = tape.constant("codes", Constant::Bytes(DType::U8, vec![count], codes));
    // As floats the weights would be a second, larger copy, so their nodes must not be folded.
    let shape = tape.late_ints(&[count / block, block], g);
    let codes = tape.op("Reshape", &[&codes, &shape], &[]);
    let codes = tape.cast(&codes, DType::I32);
    let table = tape.constant("table", Constant::F32(vec![16], table.to_vec()));
    let shares = tape.op("Gather", &[&table, &codes], &[]);
    let column = tape.ints(&[count / block, 1]);
    let largest = input(node, 2)?;
    let dtype = tape.dtype(largest)?;
    let largest = tape.op("Reshape", &[largest, &column], &[]);
    let shares = if dtype == DType::F32 { shares } else { tape.cast(&shares, dtype) };
    let weight = tape.op("Mul", &[&shares, &largest], &[]);
    let shape = tape.ints(&[n, k]);
    let weight = tape.op("Reshape", &[&weight, &shape], &[]);
    product(tape, node, g, &weight)
}

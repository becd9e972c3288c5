//! Products with quantized weights, which are frozen.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use crate::dtype::DType;
use crate::onnx::{Attribute, Constant, NodeView};

/// The operator set in which `DequantizeLinear` takes blocks and types of 4 bits.
const BLOCKS: i64 = 21;

/// `y = x W^T` with `W` [n, k] in blocks along k: `g W`.
///
/// The stored bytes are those of a tensor of 4 or 8 bits, so `DequantizeLinear` reads them where they are.
pub(super) fn matmul_n_bits<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if tape.opset() < BLOCKS {
        return Err(Unsupported::Form("below operator set 21"));
    }
    let unusual = Unsupported::Form("in this layout");
    let size = |name: &str| node.int(name).filter(|size| *size > 0).ok_or(unusual);
    let (k, n, block) = (size("K")?, size("N")?, size("block_size")?);
    let dtype = match node.int("bits").unwrap_or(4) {
        4 => DType::U4,
        8 => DType::U8,
        _ => return Err(unusual),
    };
    if k % block != 0 || node.input(4).is_some() || tape.wants(node, 2) {
        return Err(unusual);
    }
    let blocks = k / block;
    let weight =
        tape.stored(node, 1).and_then(|tensor| Constant::reinterpreted(&tensor, dtype, vec![n, k])).ok_or(unusual)?;
    let zero_points = zero_points(tape, node, dtype, [n as usize, blocks as usize]).ok_or(unusual)?;
    let weight = tape.constant("weight", weight);
    let zero_points = tape.constant("zero_points", Constant::Bytes(dtype, vec![n, blocks], zero_points));
    let shape = tape.ints(&[n, blocks]);
    let scales = tape.op("Reshape", &[input(node, 2)?, &shape], &[]);
    let layout = [("axis", Attribute::Int(1)), ("block_size", Attribute::Int(block))];
    let weight = tape.op("DequantizeLinear", &[&weight, &scales, &zero_points], &layout);
    let x = input(node, 0)?;
    let rank = tape.rank(x)?;
    let rows = super::products::flat(tape, g, rank);
    let product = tape.op("MatMul", &[&rows, &weight], &[]);
    Ok(vec![Some(if rank == 2 { product } else { tape.like(&product, x) })])
}

/// The zero points [n, blocks]. In the operator each row begins with a new byte, in a tensor of 4 bits it does not.
fn zero_points<'a>(tape: &Tape<'a>, node: NodeView<'a>, dtype: DType, [n, blocks]: [usize; 2]) -> Option<Vec<u8>> {
    let count = n * blocks;
    if node.input(3).is_none() {
        return Some(if dtype == DType::U4 { vec![0x88; count.div_ceil(2)] } else { vec![0x80; count] });
    }
    let stored = tape.stored(node, 3).filter(|tensor| tensor.dtype() == DType::U8)?;
    let bytes = stored.bytes()?;
    if dtype == DType::U8 {
        return (bytes.len() == count).then(|| bytes.into_owned());
    }
    let row = blocks.div_ceil(2);
    if bytes.len() != n * row {
        return None;
    }
    let nibble = |index: usize| {
        let (at, block) = (index / blocks, index % blocks);
        (bytes[at * row + block / 2] >> (4 * (block % 2))) & 15
    };
    Some(
        (0..count.div_ceil(2))
            .map(|pair| {
                let high = if 2 * pair + 1 < count { nibble(2 * pair + 1) } else { 0 };
                nibble(2 * pair) | (high << 4)
            })
            .collect(),
    )
}

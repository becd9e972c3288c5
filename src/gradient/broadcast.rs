//! Undoing broadcasts: the gradient of an operand that was repeated is the sum over its copies.

use super::error::Unsupported;
use super::tape::Tape;
use crate::onnx::{Attribute, Dim};

impl Tape<'_> {
    /// The gradient of `operand` from a gradient that has the shape of `result`, to which the operand was broadcast.
    ///
    /// Where the dimensions do not say which axes were repeated, nodes find out when they run: an axis of size 1 is
    /// summed, which does no harm if the result's has size 1 as well.
    pub(super) fn unbroadcast(&mut self, gradient: String, operand: &str, result: &str) -> Result<String, Unsupported> {
        let (own, whole) = (&self.info(operand)?.dims, &self.info(result)?.dims);
        if own == whole && !own.contains(&Dim::Unknown) {
            return Ok(gradient);
        }
        let added = whole.len().checked_sub(own.len()).ok_or(Unsupported::Form("with this shape"))?;
        let axes: Vec<(&Dim, &Dim)> = own.iter().zip(&whole[added..]).collect();
        let mut gradient = gradient;
        if added > 0 {
            let leading: Vec<i64> = (0..added as i64).collect();
            gradient = self.sum(&gradient, &leading, false);
        }
        let is_repeated = |(own, whole): &(&Dim, &Dim)| **own == Dim::Fixed(1) && **whole != Dim::Fixed(1);
        let is_known = |(own, whole): &(&Dim, &Dim)| {
            matches!(own, Dim::Fixed(_)) || (own == whole && matches!(own, Dim::Symbol(_)))
        };
        if axes.iter().all(is_known) {
            let repeated: Vec<i64> =
                axes.iter().zip(0..).filter(|(pair, _)| is_repeated(pair)).map(|(_, axis)| axis).collect();
            return Ok(if repeated.is_empty() { gradient } else { self.sum(&gradient, &repeated, true) });
        }
        Ok(self.sum_ones(&gradient, operand))
    }

    /// The gradient of `operand` from a gradient of `rank` axes, of which those before the last two may have been
    /// repeated.
    pub(super) fn unbatch(&mut self, gradient: String, operand: &str, rank: usize) -> Result<String, Unsupported> {
        let added = rank.checked_sub(self.rank(operand)?).ok_or(Unsupported::Form("with this shape"))?;
        let leading: Vec<i64> = (0..added as i64).collect();
        let gradient = if added > 0 { self.sum(&gradient, &leading, false) } else { gradient };
        Ok(self.sum_ones(&gradient, operand))
    }

    /// The sum over all axes that have size 1 in `operand`, which has as many axes.
    fn sum_ones(&mut self, gradient: &str, operand: &str) -> String {
        let shape = self.op("Shape", &[operand], &[]);
        let one = self.ints(&[1]);
        let is_one = self.op("Equal", &[&shape, &one], &[]);
        let found = self.op("NonZero", &[&is_one], &[]);
        let flat = self.ints(&[-1]);
        let axes = self.op("Reshape", &[&found, &flat], &[]);
        let none_is_none = ("noop_with_empty_axes", Attribute::Int(1));
        self.op("ReduceSum", &[gradient, &axes], &[("keepdims", Attribute::Int(1)), none_is_none])
    }

    /// The sum over some axes, of which there is at least one.
    pub(super) fn sum(&mut self, tensor: &str, axes: &[i64], keep: bool) -> String {
        let axes = self.ints(axes);
        self.op("ReduceSum", &[tensor, &axes], &[("keepdims", Attribute::Int(keep.into()))])
    }
}

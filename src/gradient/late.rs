//! Gradients that are made once something reads them.

use super::tape::{Late, Span, Tape};
use crate::onnx::{Attribute, Dim};
use std::collections::BTreeMap;

impl Tape<'_> {
    /// Repeats a gradient to the shape of `like`, once something needs that.
    pub(super) fn repeated(&mut self, small: &str, like: &str) -> String {
        self.make(small);
        let late = Late::Repeated { small: small.to_owned(), like: like.to_owned() };
        self.postpone("Expand", late)
    }

    /// Puts zeros around the gradient of a part, once something needs that.
    pub(super) fn part(&mut self, gradient: &str, span: Span) -> String {
        self.make(gradient);
        self.postpone("Pad", Late::Part { gradient: gradient.to_owned(), span })
    }

    fn postpone(&mut self, op: &str, late: Late) -> String {
        let name = self.fresh(op);
        self.late.insert(name.clone(), late);
        name
    }

    /// Makes a gradient that is not made yet.
    pub(super) fn make(&mut self, name: &str) {
        match self.late.remove(name) {
            None => {}
            Some(Late::Repeated { small, like }) => {
                let shape = self.op("Shape", &[&like], &[]);
                self.op_to("Expand", &[&small, &shape], &[], name);
            }
            Some(Late::Part { gradient, span: Span { axis, rank, start, end, size } }) => {
                let mut pads = vec![0; 2 * rank];
                (pads[axis], pads[rank + axis]) = (start, size - end);
                let pads = self.ints(&pads);
                self.op_to("Pad", &[&gradient, &pads], &[], name);
            }
        }
    }

    /// A tensor that is there before the gradient is read.
    pub(super) fn source(&self, gradient: &str) -> String {
        match self.late.get(gradient) {
            None => gradient.to_owned(),
            Some(Late::Repeated { small: source, .. } | Late::Part { gradient: source, .. }) => source.clone(),
        }
    }

    /// What may be multiplied by `factor` in the place of a gradient with the shape of `result`: where the factor has that
    /// shape, nothing needs to be repeated before.
    pub(super) fn beside(&self, gradient: &str, factor: &str, result: &str) -> String {
        let dims = [factor, result].map(|tensor| self.info(tensor).map(|info| &info.dims));
        let same = matches!(dims, [Ok(one), Ok(other)] if one == other && !one.contains(&Dim::Unknown));
        match self.late.get(gradient) {
            Some(Late::Repeated { small, .. }) if same => small.clone(),
            _ => gradient.to_owned(),
        }
    }

    /// Gradients of one tensor, of which those of parts that make up the whole are joined.
    pub(super) fn joined(&mut self, gradients: Vec<String>) -> Vec<String> {
        let mut parts: BTreeMap<(i64, i64), Vec<String>> = BTreeMap::new();
        let (mut others, mut first) = (Vec::new(), None);
        for name in &gradients {
            match self.late.get(name) {
                Some(Late::Part { gradient, span }) if first.is_none_or(|first: Span| first.axis == span.axis) => {
                    first = Some(*span);
                    parts.entry((span.start, span.end)).or_default().push(gradient.clone());
                }
                _ => others.push(name.clone()),
            }
        }
        let Some(Span { axis, size, .. }) = first else { return gradients };
        let end = parts.keys().try_fold(0, |at, (start, end)| (*start == at).then_some(*end));
        if end != Some(size) {
            return gradients;
        }
        let mut whole = Vec::new();
        for mut sum in parts.into_values() {
            let first = sum.remove(0);
            whole.push(sum.into_iter().fold(first, |sum, part| self.op("Add", &[&sum, &part], &[])));
        }
        let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
        others.push(match whole[..] {
            [only] => only.to_owned(),
            _ => self.op("Concat", &whole, &[("axis", Attribute::Int(axis as i64))]),
        });
        others
    }
}

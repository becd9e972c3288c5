//! Names of stored tensors, without what tools append to them.

use std::sync::LazyLock;

use regex::Regex;

use crate::graph::constant::Operand;

/// What quantizers and optimizers append to the name of a weight.
static APPENDED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pattern = "(_quantized|_DQ_Q[48](_output)?|_Q[48]|_Bnb4|_(Dequantize|Quantize)Linear_Output|_merged_[0-9]+\
                   |_transposed)+$";
    Regex::new(pattern).ok()
});

/// The name of a stored tensor without what quantizers and optimizers append.
pub(crate) fn base_name(name: &str) -> &str {
    let appended = APPENDED.as_ref().and_then(|pattern| pattern.find(name));
    appended.map_or(name, |found| &name[..found.start()])
}

/// What copies of one weight in different storage have in common: their scope and the base name of the initializers.
pub(crate) type WeightKey<'m> = (usize, &'m str);

/// The key of a weight.
///
/// Merged decoders number the weights of their branches; equal numbers there do not mean equal weights.
pub(crate) fn weight_key<'m>(weight: &Operand<'m>) -> WeightKey<'m> {
    let root = weight.root();
    (weight.home, if root.contains("_merged_") { root } else { base_name(root) })
}

/// Whether a name was invented by an exporter.
pub(crate) fn is_invented(name: &str) -> bool {
    name.starts_with("onnx::") || name.starts_with('/') || name.starts_with("val_")
}

#[cfg(test)]
mod tests {
    use super::base_name;

    #[test]
    fn base_names_lose_what_tools_append() {
        let same = |name: &str| {
            assert_eq!(base_name(name), "a.weight", "{name}");
        };
        same("a.weight");
        same("a.weight_quantized");
        same("a.weight_Q4");
        same("a.weight_DQ_Q4");
        same("a.weight_DQ_Q4_output");
        same("a.weight_merged_1");
        same("a.weight_transposed");
        same("a.weight_quantized_DequantizeLinear_Output");
        assert_eq!(base_name("onnx::MatMul_1_Bnb4"), "onnx::MatMul_1");
        assert_eq!(base_name("a.weight_Q4.b"), "a.weight_Q4.b");
    }
}

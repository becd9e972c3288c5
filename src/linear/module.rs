//! Dotted paths of PyTorch modules: `model.layers.0.self_attn.q_proj`.

/// The last component: `q_proj`.
pub fn leaf(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The path of the module around it; empty if there is none.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// Whether `end` is the whole path or its end after a dot: what PEFT takes for a match of a target module.
pub fn is_suffix(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// What follows each dot, longest first: PEFT takes a target module of such a name for this one too.
pub fn endings(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(dot, _)| &path[dot + 1..])
}

/// Whether the module `inner` is inside the module `outer`; all are inside the empty path.
pub fn is_inside(inner: &str, outer: &str) -> bool {
    outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// Whether a component is the index of a block: `0`.
pub fn is_index(component: &str) -> bool {
    !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_digit())
}

/// The path up to the last index before its end, and the rest: `model.layers.0` and `self_attn.q_proj`. The first is
/// empty if there is no index.
pub fn split_block(path: &str) -> (&str, &str) {
    match ancestors(parent(path)).filter(|path| is_index(leaf(path))).last() {
        Some(block) => (block, &path[block.len() + 1..]),
        None => ("", path),
    }
}

/// The path and those of all modules around it, outermost first: `a`, `a.b` and `a.b.c` for `a.b.c`.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).filter(|start| !start.is_empty())
}

/// Most components of names that are read as module paths: all paths around a module are kept, which takes memory in
/// proportion to the square of their number.
const MAX_COMPONENTS: usize = 64;

/// Whether a name with dots or slashes can be the path of a module.
pub fn is_plausible(path: &str) -> bool {
    path.bytes().filter(|byte| matches!(byte, b'.' | b'/')).count() < MAX_COMPONENTS
}

/// `a.query` of `a.query_12`: TorchScript numbers repeated calls of a module.
pub fn without_call_number(path: &str) -> Option<&str> {
    let (first, number) = path.rsplit_once('_')?;
    is_index(number).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components() {
        assert_eq!((leaf("a.b.c"), leaf("c"), leaf("")), ("c", "c", ""));
        assert_eq!((parent("a.b.c"), parent("c")), ("a.b", ""));
        assert_eq!(ancestors("a.b.c").collect::<Vec<_>>(), ["a", "a.b", "a.b.c"]);
        assert_eq!(endings("a.b.c").collect::<Vec<_>>(), ["b.c", "c"]);
        assert_eq!(split_block("model.layers.0.mlp.up_proj"), ("model.layers.0", "mlp.up_proj"));
        assert_eq!(split_block("a.0.b.12.c"), ("a.0.b.12", "c"));
        assert_eq!(split_block("seq.0"), ("", "seq.0"));
        assert_eq!(split_block("blocks.0.seq.1"), ("blocks.0", "seq.1"));
        assert_eq!(split_block("pooler.dense"), ("", "pooler.dense"));
        assert_eq!(without_call_number("a.query_12"), Some("a.query"));
        assert_eq!(without_call_number("a.q_proj"), None);
    }

    #[test]
    fn ends_and_insides_are_at_a_dot() {
        assert!(is_suffix("a.q_proj", "q_proj") && is_suffix("q_proj", "q_proj"));
        assert!(!is_suffix("a.xq_proj", "q_proj"));
        assert!(is_inside("enc.self_attn.out_proj", "enc.self_attn"));
        assert!(!is_inside("enc.self_attn", "enc.self_attn"));
        assert!(!is_inside("enc.self_attn2", "enc.self_attn"));
    }
}

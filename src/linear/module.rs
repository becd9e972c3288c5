//! Dotted paths of PyTorch modules: `model.layers.0.self_attn.q_proj`.

/// Whether `name` is the whole path `module` or its end after a dot.
pub(crate) fn is_suffix(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// `a`, `a.b` and `a.b.c` of `a.b.c`.
pub(crate) fn starts(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).filter(|start| !start.is_empty())
}

pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

pub(crate) fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Whether the module `inner` lies inside the module `outer`.
pub(crate) fn is_inside(inner: &str, outer: &str) -> bool {
    outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// `a.query` of `a.query_12`.
pub(crate) fn numbered(module: &str) -> Option<&str> {
    let (first, number) = module.rsplit_once('_')?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(first)
}

//! The name that was probably meant.

/// The name nearest to `given`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |name: &&str| (distance(given, name), name.len());
    let best = names.into_iter().min_by_key(near)?;
    (distance(given, best) <= given.chars().count().div_ceil(3)).then_some(best)
}

/// Letters to insert, remove or change to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_meant() {
        let names = ["rank", "ranks", "rho", "batch-size"];
        for (given, meant) in [("rnak", Some("rank")), ("rank", Some("rank")), ("batchsize", Some("batch-size"))] {
            assert_eq!(nearest(given, names), meant, "{given}");
        }
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("x", []), None);
    }
}

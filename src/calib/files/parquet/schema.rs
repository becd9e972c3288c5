//! What the columns of a Parquet file may be.

use ::parquet::basic::{ConvertedType, Repetition};
use ::parquet::schema::types::Type;

/// Most groups within each other.
const DEEPEST: usize = 32;

/// # Errors
/// Which columns of a file with this schema are not read.
pub(super) fn check(schema: &Type) -> Result<(), String> {
    let columns = schema.get_fields();
    if columns.is_empty() {
        return Err("it has no columns".to_owned());
    }
    let twice =
        columns.iter().enumerate().find(|(at, one)| columns[..*at].iter().any(|other| other.name() == one.name()));
    if let Some((_, column)) = twice {
        return Err(format!("it has two columns `{}`", column.name()));
    }
    columns
        .iter()
        .try_for_each(|column| check_column(column, false, 1).map_err(|why| format!("`{}` {why}", column.name())))
}

fn check_column(column: &Type, in_list: bool, depth: usize) -> Result<(), &'static str> {
    let info = column.get_basic_info();
    let kind = info.converted_type();
    // The library does not read these right: https://github.com/apache/arrow-rs/issues/2394.
    if !in_list && info.has_repetition() && info.repetition() == Repetition::REPEATED {
        return Err("repeats, and is not marked as a list");
    }
    if kind == ConvertedType::INTERVAL {
        return Err("holds intervals of time");
    }
    if column.is_primitive() {
        return Ok(());
    }
    if depth == DEEPEST {
        return Err("has too many levels");
    }
    if column.get_fields().is_empty() {
        return Err("is a group of no columns");
    }
    let lists = [ConvertedType::LIST, ConvertedType::MAP, ConvertedType::MAP_KEY_VALUE].contains(&kind);
    column.get_fields().iter().try_for_each(|field| check_column(field, lists, depth + 1))
}

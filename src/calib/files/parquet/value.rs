//! The values of a Parquet file as those of JSON.

use ::parquet::record::{Field, Row};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Number, Value, json};

use super::super::super::row::Fields;

/// Columns in which pandas keeps the index of its rows.
const INDEX: &str = "__index_level_";

/// The fields of a row.
///
/// # Errors
/// The column that holds what is not read, and what that is.
pub(super) fn fields(row: Row) -> Result<Fields, (String, &'static str)> {
    let columns = row.into_columns().into_iter().filter(|(name, _)| !name.starts_with(INDEX));
    columns
        .map(|(name, field)| match value(&field) {
            Ok(value) => Ok((name, value)),
            Err(found) => Err((name, found)),
        })
        .collect()
}

fn value(field: &Field) -> Result<Value, &'static str> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => number((*value).into())?,
        Field::Float(value) => number((*value).into())?,
        Field::Double(value) => number(*value)?,
        Field::Decimal(_) => {
            number(field.to_string().parse::<f64>().map_err(|_| "a decimal number that is not read")?)?
        }
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => of_bytes(bytes.data()),
        Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => field.to_string().into(),
        Field::Group(row) => row.get_column_iter().map(member).collect::<Result<Map<_, _>, _>>()?.into(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect::<Result<Vec<_>, _>>()?.into(),
        Field::MapInternal(map) => {
            let name = |key: &Field| if let Field::Str(key) = key { key.clone() } else { key.to_string() };
            let entries = map.entries().iter().map(|(key, of)| Ok((name(key), value(of)?)));
            entries.collect::<Result<Map<_, _>, &'static str>>()?.into()
        }
    })
}

/// JSON has no other numbers.
fn number(value: f64) -> Result<Value, &'static str> {
    Number::from_f64(value).map(Value::Number).ok_or("a number that is not finite")
}

/// Text where they are text, as some writers do not say that; else as the datasets library has files.
fn of_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({"bytes": BASE64_STANDARD.encode(bytes)}),
    }
}

/// A field of a struct. `bytes` are those of a file.
fn member((name, field): (&String, &Field)) -> Result<(String, Value), &'static str> {
    match (&**name, field) {
        ("bytes", Field::Bytes(bytes)) => Ok((name.clone(), BASE64_STANDARD.encode(bytes.data()).into())),
        _ => Ok((name.clone(), value(field)?)),
    }
}

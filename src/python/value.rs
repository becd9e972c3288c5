//! Rows of Python as rows of data.

use crate::calib::{self, FieldValue, Fields, RowOrigin, of_numpy};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};
use serde_json::{Map, Number, Value};

/// Lists within lists that are read.
const DEEPEST: usize = 64;

/// The fields of a mapping.
///
/// # Errors
/// When it is none, or a value is not one that rows have.
pub(super) fn fields(row: &Bound<'_, PyAny>, origin: &RowOrigin) -> Result<Fields, calib::Error> {
    let no_object = |_| calib::Error::NotAnObject { origin: origin.clone(), got: "another value of Python" };
    let row = row.cast::<PyMapping>().map_err(|_| no_object(()))?;
    let items = row.items().map_err(|_| no_object(()))?;
    let field = |item: Bound<'_, PyAny>| {
        let (name, found): (String, Bound<'_, PyAny>) = item.extract().map_err(|_: PyErr| no_object(()))?;
        let wrong = |got| calib::Error::FieldType {
            origin: origin.clone(),
            field: name.clone(),
            expected: "text, numbers, lists or arrays",
            got,
        };
        let value = value(&found).map_err(wrong)?;
        Ok((name, value))
    };
    items.iter().map(field).collect()
}

/// A value of a field: an array as a tensor, what JSON has as JSON.
fn value(value: &Bound<'_, PyAny>) -> Result<FieldValue, String> {
    if let Some(value) = json(value, 0)? {
        return Ok(value.into());
    }
    let array = PyModule::import(value.py(), "numpy")
        .and_then(|numpy| numpy.call_method1("asarray", (value,)))
        .map_err(|error| format!("{} ({error})", kind(value)))?;
    let parts = || -> PyResult<(String, Vec<usize>, Vec<u8>)> {
        let descr = array.getattr("dtype")?.getattr("str")?.extract()?;
        Ok((descr, array.getattr("shape")?.extract()?, array.call_method0("tobytes")?.extract()?))
    };
    let (descr, shape, bytes) = parts().map_err(|error| format!("{} ({error})", kind(value)))?;
    of_numpy(&descr, &shape, &bytes).map_err(|reason| format!("{}: {reason}", kind(value)))
}

/// A value that JSON has; `None` if it is another one.
fn json(value: &Bound<'_, PyAny>, depth: usize) -> Result<Option<Value>, String> {
    let inner = |value: &Bound<'_, PyAny>| {
        if depth == DEEPEST {
            return Err("lists within lists without an end".to_owned());
        }
        json(value, depth + 1)?.ok_or_else(|| format!("{} in it", kind(value)))
    };
    let failed = |error: PyErr| error.to_string();
    Ok(Some(if value.is_none() {
        Value::Null
    } else if value.is_instance_of::<PyBool>() {
        Value::Bool(value.extract().map_err(failed)?)
    } else if value.is_instance_of::<PyString>() {
        Value::String(value.extract().map_err(failed)?)
    } else if value.is_instance_of::<PyInt>() {
        Value::Number(integer(value).ok_or_else(|| format!("{value}, which does not fit 64 bits"))?)
    } else if value.is_instance_of::<PyFloat>() {
        let number = value.extract().map_err(failed)?;
        Value::Number(Number::from_f64(number).ok_or_else(|| number.to_string())?)
    } else if let Ok(list) = value.cast::<PyList>() {
        Value::Array(list.iter().map(|value| inner(&value)).collect::<Result<_, _>>()?)
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        Value::Array(tuple.iter().map(|value| inner(&value)).collect::<Result<_, _>>()?)
    } else if let Ok(dict) = value.cast::<PyDict>() {
        let entry = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            Ok((name.extract::<String>().map_err(failed)?, inner(&value)?))
        };
        Value::Object(dict.iter().map(entry).collect::<Result<Map<_, _>, String>>()?)
    } else if let Ok(path) = value.call_method0("__fspath__") {
        Value::String(path.extract().map_err(failed)?)
    } else if is_scalar(value) {
        let item = value.call_method0("item").map_err(failed)?;
        return json(&item, depth);
    } else {
        return Ok(None);
    }))
}

fn integer(value: &Bound<'_, PyAny>) -> Option<Number> {
    let signed = value.extract::<i64>().map(Number::from);
    signed.or_else(|_| value.extract::<u64>().map(Number::from)).ok()
}

/// Whether it is a scalar of NumPy, which Python has a number for.
fn is_scalar(value: &Bound<'_, PyAny>) -> bool {
    let generic = PyModule::import(value.py(), "numpy").and_then(|numpy| numpy.getattr("generic"));
    generic.and_then(|generic| value.is_instance(&generic)).unwrap_or(false)
}

/// The type of a value, for a message.
fn kind(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "an object".to_owned(), |name| format!("a value of type `{name}`"))
}

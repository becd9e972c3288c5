//! What a label says: a class, classes of tokens, or numbers.

use crate::calib::{BadLabel, FieldValue, IGNORED, Row};
use serde_json::Value;
use std::collections::BTreeMap;

/// The classes of a model.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    /// Their number: the size of the last axis of the logits.
    pub(super) count: usize,
    /// The class of each name.
    pub(super) by_name: BTreeMap<String, usize>,
}

impl Classes {
    /// Whether a label is a list with an entry for each class, or of names.
    pub(super) fn is_several(&self, label: &Value) -> bool {
        let label = listed(label).unwrap_or_else(|| label.clone());
        flat(&label).is_some_and(|values| values.len() != 1)
    }

    /// A class, by number or name; -100 for none.
    pub(super) fn one(&self, label: &Value) -> Result<i64, BadLabel> {
        let number = match label {
            Value::String(name) => match self.by_name.get(name) {
                Some(class) => return Ok(*class as i64),
                None => name.trim().parse().map_err(|_| self.unknown(name))?,
            },
            Value::Array(values) if values.len() == 1 => return self.one(&values[0]),
            other => other.as_i64().ok_or_else(|| kind("a class: an integer or a name", other))?,
        };
        if number == IGNORED || usize::try_from(number).is_ok_and(|class| class < self.count) {
            return Ok(number);
        }
        Err(BadLabel::OutOfRange { label: number, classes: self.count })
    }

    /// A class for each token.
    pub(super) fn each(&self, label: &Value) -> Result<Vec<i64>, BadLabel> {
        let list = listed(label);
        let values = flat(list.as_ref().unwrap_or(label)).filter(|values| !values.is_empty());
        values.ok_or_else(|| kind("a list with a class for each token", label))?.iter().map(|v| self.one(v)).collect()
    }

    /// How much each class applies, from 0 to 1; a list of names stands for 1 at these classes and 0 at the others.
    pub(super) fn shares(&self, label: &Value) -> Result<Vec<f64>, BadLabel> {
        let expected = || format!("a list of {} numbers from 0 to 1, or of names of classes", self.count);
        let wrong = |got: &Value| kind(&expected(), got);
        let list = listed(label);
        let values = flat(list.as_ref().unwrap_or(label)).filter(|values| !values.is_empty());
        let values = values.ok_or_else(|| wrong(label))?;
        if values.iter().all(Value::is_string) {
            let mut shares = vec![0.0; self.count];
            for name in values.iter().filter_map(Value::as_str) {
                let class = self.by_name.get(name).filter(|class| **class < self.count);
                shares[*class.ok_or_else(|| self.unknown(name))?] = 1.0;
            }
            return Ok(shares);
        }
        let share =
            |value: &Value| number(value).filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| wrong(value));
        self.all(values.iter().map(share).collect::<Result<_, _>>()?, expected)
    }

    /// As many numbers as there are logits.
    pub(super) fn numbers(&self, label: &Value) -> Result<Vec<f64>, BadLabel> {
        let expected =
            || if self.count == 1 { "a number".to_owned() } else { format!("a list of {} numbers", self.count) };
        let wrong = |got: &Value| kind(&expected(), got);
        let list = listed(label);
        let values = flat(list.as_ref().unwrap_or(label));
        let finite = |value: &Value| {
            let text = value.as_str().and_then(|text| text.trim().parse().ok());
            let number = if value.is_boolean() { None } else { text.or_else(|| number(value)) };
            number.filter(|number: &f64| (*number as f32).is_finite()).ok_or_else(|| wrong(value))
        };
        let values = values.unwrap_or_else(|| std::slice::from_ref(label)).iter().map(finite);
        self.all(values.collect::<Result<_, _>>()?, expected)
    }

    /// The numbers, if there is one for each class.
    fn all(&self, numbers: Vec<f64>, expected: impl Fn() -> String) -> Result<Vec<f64>, BadLabel> {
        if numbers.len() == self.count {
            return Ok(numbers);
        }
        Err(BadLabel::Kind { expected: expected(), got: format!("{} of them", numbers.len()) })
    }

    fn unknown(&self, name: &str) -> BadLabel {
        /// Most names in a message.
        const SHOWN: usize = 8;
        let known = self.by_name.keys().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let known = match self.by_name.len() {
            0 => "no names of classes".to_owned(),
            many if many > SHOWN => format!("{known} and {} more", many - SHOWN),
            _ => known,
        };
        BadLabel::UnknownName { name: name.to_owned(), known }
    }
}

/// The field of a row that is there and not null.
pub(super) fn given(row: &Row, field: &str) -> Option<Value> {
    match row.fields.get(field)? {
        FieldValue::Json(Value::Null) => None,
        FieldValue::Json(value) => Some(value.clone()),
        FieldValue::Tensor(tensor) => {
            let values = match tensor.to_integers() {
                Some(integers) => integers.into_iter().map(Value::from).collect::<Vec<_>>(),
                None => tensor.to_floats().into_iter().map(Value::from).collect(),
            };
            let alone = tensor.shape().is_empty().then(|| values.first().cloned()).flatten();
            Some(alone.unwrap_or(Value::Array(values)))
        }
    }
}

/// The values of a list; a list around it is the axis of a batch of one row.
pub(super) fn flat(value: &Value) -> Option<&[Value]> {
    match value.as_array()?.as_slice() {
        [Value::Array(inner)] => Some(inner),
        values => Some(values),
    }
}

/// The list that a text is in JSON, as in tables.
fn listed(value: &Value) -> Option<Value> {
    serde_json::from_str(value.as_str()?).ok().filter(Value::is_array)
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|on| f64::from(u8::from(on))))
}

fn kind(expected: &str, got: &Value) -> BadLabel {
    let got = match got {
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("`{text}`"),
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Bool(_) => "a truth value".to_owned(),
        Value::Null => "null".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    BadLabel::Kind { expected: expected.to_owned(), got }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn classes(count: usize) -> Classes {
        let names = ["bad", "good", "so so"].into_iter().take(count).zip(0..);
        Classes { count, by_name: names.map(|(name, class)| (name.to_owned(), class)).collect() }
    }

    #[track_caller]
    fn shown<T: std::fmt::Debug>(result: Result<T, BadLabel>, expected: &str) {
        let text = result.map_or_else(|error| error.to_string(), |value| format!("{value:?}"));
        assert_eq!(text, expected);
    }

    #[test]
    fn one_class() {
        let one = |label: Value, expected: &str| shown(classes(3).one(&label), expected);
        one(json!(2), "2");
        one(json!([1]), "1");
        one(json!("so so"), "2");
        one(json!("1"), "1");
        one(json!(-100), "-100");
        one(json!(3), "label 3 is outside the model's classes, 0 to 2");
        one(json!(-1), "label -1 is outside the model's classes, 0 to 2");
        one(json!("fine"), "the model has no class `fine`; config.json has `bad`, `good`, `so so`");
        one(json!(1.0), "the label must be a class: an integer or a name, got 1.0");
        one(json!(true), "the label must be a class: an integer or a name, got a truth value");
        one(json!([]), "the label must be a class: an integer or a name, got a list of 0");
    }

    #[test]
    fn several_classes() {
        let shares = |label: Value, expected: &str| shown(classes(3).shares(&label), expected);
        shares(json!([0, 1, 0.5]), "[0.0, 1.0, 0.5]");
        shares(json!([[true, false, true]]), "[1.0, 0.0, 1.0]");
        shares(json!("[1, 0, 0]"), "[1.0, 0.0, 0.0]");
        shares(json!(["good", "bad"]), "[1.0, 1.0, 0.0]");
        let wrong = "the label must be a list of 3 numbers from 0 to 1, or of names of classes, got";
        shares(json!([1, 0]), &format!("{wrong} 2 of them"));
        shares(json!([2, 0, 0]), &format!("{wrong} 2"));
        shares(json!([]), &format!("{wrong} a list of 0"));
        shares(json!(1), &format!("{wrong} 1"));
        shares(json!(["worse"]), "the model has no class `worse`; config.json has `bad`, `good`, `so so`");
        assert!(classes(3).is_several(&json!("[1, 0, 0]")) && !classes(3).is_several(&json!("[good]")));
        assert!(!classes(3).is_several(&json!([1])) && !classes(3).is_several(&json!(1)));
    }

    #[test]
    fn numbers_and_tokens() {
        shown(classes(1).numbers(&json!(2)), "[2.0]");
        shown(classes(1).numbers(&json!(["-1.5"])), "[-1.5]");
        shown(classes(2).numbers(&json!([1, 2.5])), "[1.0, 2.5]");
        shown(classes(2).numbers(&json!(1)), "the label must be a list of 2 numbers, got 1 of them");
        shown(classes(1).numbers(&json!("nan")), "the label must be a number, got `nan`");
        shown(classes(1).numbers(&json!(true)), "the label must be a number, got a truth value");
        shown(classes(2).each(&json!([0, -100, "good"])), "[0, -100, 1]");
        shown(classes(2).each(&json!("[0, 1]")), "[0, 1]");
        shown(classes(2).each(&json!([])), "the label must be a list with a class for each token, got a list of 0");
        shown(classes(2).each(&json!([0, 7])), "label 7 is outside the model's classes, 0 to 1");
    }
}

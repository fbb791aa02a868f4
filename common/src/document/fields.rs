//! Reading single fields of a foreign JSON object, with a problem instead of an error.

use serde_json::{Map, Value};

use super::problem::{Problem, ProblemCode};
use crate::annotations::Annotations;
use crate::config::Limits;

/// An object of foreign JSON.
pub(super) type Object = Map<String, Value>;

/// A text; absent and null are empty, anything else is a problem.
pub(super) fn text(object: &Object, key: &str, problems: &mut Vec<Problem>) -> String {
    match object.get(key) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => {
            problems.push(Problem::new(
                ProblemCode::NotText,
                format_args!("{key:?} is not a text"),
            ));
            String::new()
        }
    }
}

/// A list of texts; entries of other types are left out.
pub(super) fn texts(object: &Object, key: &str) -> Vec<String> {
    let entries = object.get(key).and_then(Value::as_array);
    let texts = entries.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Labels or annotations within the limits; what does not fit is left out and recorded once for each reason.
pub(super) fn texts_by_key(
    value: Option<&Value>,
    what: &str,
    limits: &Limits,
    problems: &mut Vec<Problem>,
) -> Annotations {
    let mut texts = Annotations::new();
    let (mut not_texts, mut long_keys, mut long_values, mut too_many) = (0_usize, 0_usize, 0_usize, 0_usize);
    let object = match value {
        None | Some(Value::Null) => return texts,
        Some(Value::Object(object)) => object,
        Some(_) => {
            problems.push(Problem::new(
                ProblemCode::NotText,
                format_args!("the {what} are not an object"),
            ));
            return texts;
        }
    };
    for (key, value) in object {
        match value {
            Value::String(_) if key.len() > limits.label_key => long_keys += 1,
            Value::String(value) if value.len() > limits.label_value => long_values += 1,
            Value::String(_) if texts.len() >= limits.labels => too_many += 1,
            Value::String(value) => drop(texts.insert(key.clone(), value.clone())),
            _ => not_texts += 1,
        }
    }
    if not_texts > 0 {
        let detail = format!("left out {not_texts} {what} that are not texts");
        problems.push(Problem::new(ProblemCode::NotText, detail));
    }
    for (count, limit, reason) in [
        (long_keys, "label_key", "whose key is too long"),
        (long_values, "label_value", "whose value is too long"),
        (too_many, "labels", "beyond the limit of their number"),
    ] {
        if count > 0 {
            let detail = format!("left out {count} {what} {reason}");
            problems.push(Problem::new(ProblemCode::Limit, detail).at_limit(limit));
        }
    }
    texts
}

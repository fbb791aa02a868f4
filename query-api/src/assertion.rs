//! Assertions about an index: whether its `Results` contain what a test describes.
//!
//! `contains` is structural: an object contains an object if it has each of its keys with a value that contains that
//! value; an array contains an array if each element of the latter is contained in some element of it; all else
//! contains only what equals it, numbers by their value. (Containment as in PostgreSQL's `jsonb @>`.)

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// One assertion, as clients write it.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Assertion {
    #[serde(rename = "Type")]
    expectation: Expectation,
    test: Value,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Expectation {
    Contains,
    NotContains,
}

impl Assertion {
    /// Whether the assertion is true of the value.
    pub(crate) fn holds(&self, value: &Value) -> bool {
        contains(value, &self.test) == (self.expectation == Expectation::Contains)
    }
}

/// Recursion ends with the test, whose depth serde_json limits to 128.
fn contains(value: &Value, test: &Value) -> bool {
    match (value, test) {
        (Value::Object(value), Value::Object(test)) => test
            .iter()
            .all(|(key, test)| value.get(key).is_some_and(|value| contains(value, test))),
        (Value::Array(value), Value::Array(test)) => {
            test.iter().all(|test| value.iter().any(|value| contains(value, test)))
        }
        (Value::Number(value), Value::Number(test)) => equals(value, test),
        (value, test) => value == test,
    }
}

/// Integers exactly, else as floating point.
fn equals(one: &Number, other: &Number) -> bool {
    one == other || ((one.is_f64() || other.is_f64()) && one.as_f64() == other.as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn contains_what_is_a_part() {
        for (value, test) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1})),
            (json!({"a": {"b": [1, 2]}}), json!({"a": {"b": [2]}})),
            (json!({"a": 1}), json!({})),
            (json!([1, 2, 3]), json!([3, 1])),
            (json!([1]), json!([1, 1])),
            (json!([1]), json!([])),
            (json!([{"a": 1, "b": 2}, {"a": 2}]), json!([{"b": 2}, {"a": 2}])),
            (json!("text"), json!("text")),
            (json!(null), json!(null)),
            (json!({"a": null}), json!({"a": null})),
            (json!(true), json!(true)),
            (json!(1), json!(1.0)),
            (json!(1.5), json!(1.5)),
            (
                json!(18_446_744_073_709_551_615_u64),
                json!(18_446_744_073_709_551_615_u64),
            ),
            (json!(-3), json!(-3)),
        ] {
            assert!(contains(&value, &test), "{value} {test}");
        }
    }

    #[test]
    fn contains_nothing_else() {
        for (value, test) in [
            (json!({"a": 1}), json!({"a": 2})),
            (json!({"a": 1}), json!({"b": 1})),
            (json!({"a": 1}), json!({"a": 1, "b": null})),
            (json!({"a": 1}), json!([])),
            (json!([{"a": 1}]), json!({"a": 1})),
            (json!([[1, 2]]), json!([1])),
            (json!([1, 2]), json!([3])),
            (json!([{"a": 1}, {"b": 2}]), json!([{"a": 1, "b": 2}])),
            (json!("text"), json!("tex")),
            (json!("1"), json!(1)),
            (json!(null), json!(false)),
            (json!(1), json!(1.5)),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64)),
            (json!(true), json!(1)),
        ] {
            assert!(!contains(&value, &test), "{value} {test}");
        }
    }

    #[test]
    fn an_assertion_is_true_or_not() {
        for (kind, test, expected) in [
            ("contains", json!([1]), true),
            ("contains", json!([2]), false),
            ("not-contains", json!([1]), false),
            ("not-contains", json!([2]), true),
        ] {
            let assertion: Assertion = serde_json::from_value(json!({"Type": kind, "Test": test})).expect("assertion");
            assert_eq!(assertion.holds(&json!([1])), expected, "{kind} {test}");
        }
    }

    #[test]
    fn unknown_types_and_keys_are_refused() {
        for text in [
            json!({"Type": "equals", "Test": 1}),
            json!({"Type": "Contains", "Test": 1}),
            json!({"Type": "contains"}),
            json!({"Test": 1}),
            json!({"Type": "contains", "Test": 1, "Tset": 1}),
        ] {
            assert!(serde_json::from_value::<Assertion>(text.clone()).is_err(), "{text}");
        }
    }
}

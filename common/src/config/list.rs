//! Lists of texts: a YAML sequence, or one text as the environment gives it (`a, b` or `["a", "b"]`).

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};

/// For fields that are a `Vec<String>`: `#[serde(deserialize_with = "super::list::deserialize")]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(ListVisitor)
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
        let text = text.trim();
        if text.starts_with('[') {
            return serde_yaml::from_str(text).map_err(|error| {
                E::custom(format_args!(
                    "{text:?} is no YAML list of texts (quote what begins with * or holds a comma): {error}"
                ))
            });
        }
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|element| !element.is_empty())
            .map(str::to_owned)
            .collect())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<String>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = sequence.next_element()? {
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    fn read(text: &str) -> Result<Vec<String>, Error> {
        let deserializer: StrDeserializer<'_, Error> = text.into_deserializer();
        deserialize(deserializer)
    }

    #[test]
    fn reads_lists_as_the_environment_gives_them() {
        for (text, list) in [
            ("", vec![]),
            (" , ", vec![]),
            ("apps/**", vec!["apps/**"]),
            ("a, b,c ", vec!["a", "b", "c"]),
            ("**", vec!["**"]),
            ("[]", vec![]),
            ("[a, 'b,c', \"**\"]", vec!["a", "b,c", "**"]),
            ("[0123, 1e5, true]", vec!["0123", "1e5", "true"]),
        ] {
            assert_eq!(read(text).unwrap(), list, "{text}");
        }
    }

    #[test]
    fn refuses_a_broken_flow_list() {
        for text in ["[a", "[**]", "[[a]]", "[{a: b}]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}

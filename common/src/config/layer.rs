//! One source of configuration: the file, or the environment.

use std::collections::BTreeMap;

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::fault::{Faults, Origin, Problem};

/// Keys and values of one source, and where each key was given.
pub(super) struct Layer {
    values: Dict,
    origins: Origins,
}

enum Origins {
    /// All from one place.
    One(Origin),
    /// Path of the key → environment variable.
    Variables(BTreeMap<String, String>),
}

/// Begins the name of each variable that is configuration.
const PREFIX: &str = "FLAGSTATE_";
/// Parts sections and keys in the name of a variable. A variable without it is none of ours: orchestrators
/// make such ones for services that are called `flagstate-…`.
const SEPARATOR: &str = "__";

impl Layer {
    /// YAML, sections at its top; an empty document is an empty layer.
    pub(super) fn from_yaml(text: &str, origin: Origin, faults: &mut Faults) -> Self {
        let values = match parse_yaml(text) {
            Ok(values) => values,
            Err(problem) => {
                faults.add("", Some(origin.clone()), problem);
                Dict::new()
            }
        };
        Self {
            values,
            origins: Origins::One(origin),
        }
    }

    /// The variables `FLAGSTATE_<SECTION>__<KEY>`; their values stay texts.
    pub(super) fn from_variables(variables: &BTreeMap<String, String>, faults: &mut Faults) -> Self {
        let mut values = Dict::new();
        let mut origins = BTreeMap::new();
        for (variable, value) in variables {
            let Some(path) = path_of(variable) else {
                continue;
            };
            if insert(&mut values, &path, value) {
                origins.insert(path.join("."), variable.clone());
            } else {
                let origin = Origin::Environment(variable.clone());
                faults.add(&path.join("."), Some(origin), Problem::AmbiguousVariable);
            }
        }
        Self {
            values,
            origins: Origins::Variables(origins),
        }
    }

    /// Where this layer gives the key, or something in it; `None` if it does not.
    pub(super) fn origin_of(&self, key: &str) -> Option<Origin> {
        if !self.gives(key) {
            return None;
        }
        match &self.origins {
            Origins::One(origin) => Some(origin.clone()),
            Origins::Variables(variables) => variables
                .iter()
                .find(|(path, _)| is_at_or_below(path, key) || is_at_or_below(key, path))
                .map(|(_, variable)| Origin::Environment(variable.clone())),
        }
    }

    fn gives(&self, key: &str) -> bool {
        let mut dict = &self.values;
        for part in key.split('.') {
            match dict.get(part) {
                Some(Value::Dict(_, inner)) => dict = inner,
                // What stands in a list was given with the list.
                Some(_) => return true,
                None => return false,
            }
        }
        true
    }

    /// Takes the key out, or the list that it stands in; whether it was there.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let mut dict = &mut self.values;
        let Some((last, sections)) = path.split_last() else {
            return false;
        };
        for section in sections {
            let is_section = matches!(dict.get(section), Some(Value::Dict(..)));
            if !is_section {
                return dict.remove(section).is_some();
            }
            match dict.get_mut(section) {
                Some(Value::Dict(_, inner)) => dict = inner,
                _ => return false,
            }
        }
        dict.remove(last).is_some()
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("flagstate")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(&self.values).data()
    }
}

/// The variable that sets a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', SEPARATOR).to_uppercase())
}

/// The path of the key that a variable sets, if it is one of ours.
pub(super) fn path_of(variable: &str) -> Option<Vec<String>> {
    let name = variable.strip_prefix(PREFIX)?;
    name.contains(SEPARATOR)
        .then(|| name.to_lowercase().split(SEPARATOR).map(str::to_owned).collect())
}

/// Whether it went in: neither was the key there, nor is one of its sections a text.
fn insert(dict: &mut Dict, path: &[String], value: &str) -> bool {
    match path {
        [] => false,
        [key] => {
            let is_new = !dict.contains_key(key);
            if is_new {
                dict.insert(key.clone(), Value::from(value));
            }
            is_new
        }
        [section, rest @ ..] => {
            let inner = dict.entry(section.clone()).or_insert_with(|| Value::from(Dict::new()));
            match inner {
                Value::Dict(_, inner) => insert(inner, rest, value),
                _ => false,
            }
        }
    }
}

fn is_at_or_below(path: &str, section: &str) -> bool {
    path.strip_prefix(section)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn parse_yaml(text: &str) -> Result<Dict, Problem> {
    // By way of serde_yaml's own value, which refuses a key that is given twice.
    let document: serde_yaml::Value = serde_yaml::from_str(text).map_err(Problem::NotYaml)?;
    match document {
        serde_yaml::Value::Null => Ok(Dict::new()),
        serde_yaml::Value::Mapping(mapping) => match Value::serialize(mapping) {
            Ok(Value::Dict(_, values)) => Ok(values),
            _ => Err(Problem::NotSections),
        },
        _ => Err(Problem::NotSections),
    }
}

//! Loading: defaults, then the file, then the environment.

use std::fs;
use std::io;
use std::path::Path;

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::value::Value;

use super::Config;
use super::environment::Environment;
use super::fault::{ConfigErrors, Faults, Origin, Problem};
use super::layer::Layer;
use super::raw::RawConfig;

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/flagstate/config.yaml";

/// Whose configuration is read.
///
/// Both services read the same file, but query-api neither needs nor reads the registry's
/// credentials and the tokens for `/events`: their files need not be there for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Everything is read.
    Indexer,
    /// Without what only the indexer may know.
    QueryApi,
}

impl Config {
    /// Loads from the file and the environment of this process.
    ///
    /// # Errors
    ///
    /// All faults at once. A file that was named must be there; [`DEFAULT_FILE`] need not.
    pub fn load(path: Option<&Path>, service: Service) -> Result<Self, ConfigErrors> {
        let mut faults = Faults::default();
        let file = path.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        let origin = Origin::File(file.to_owned());
        let yaml = match fs::read_to_string(file) {
            Ok(yaml) => yaml,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                faults.add("", Some(origin), Problem::UnreadableFile(error));
                return Err(faults.into());
            }
        };
        let environment = Environment::of_this_process(&mut faults);
        from_layers(&yaml, origin, &environment, service, faults)
    }

    /// Loads from a text and given environment variables, for tests and tools; this process's are not looked at.
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn from_sources(
        yaml: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        service: Service,
    ) -> Result<Self, ConfigErrors> {
        let environment = Environment::of_variables(environment);
        from_layers(yaml, Origin::Text, &environment, service, Faults::default())
    }
}

fn from_layers(
    yaml: &str,
    origin: Origin,
    environment: &Environment,
    service: Service,
    mut faults: Faults,
) -> Result<Config, ConfigErrors> {
    let mut layers = [
        Layer::from_yaml(yaml, origin, &mut faults),
        Layer::from_variables(&environment.variables, &mut faults),
    ];
    let raw = extract(&mut layers, &mut faults);
    match Config::try_from((raw, environment, service)) {
        Ok(config) if faults.is_empty() => Ok(config),
        Ok(_) => Err(faults.into()),
        Err(others) => {
            faults.absorb(others, |key| origin_of(&layers, key));
            Err(faults.into())
        }
    }
}

/// Merges the layers; what does not fit is recorded and taken out, until the rest fits.
fn extract(layers: &mut [Layer; 2], faults: &mut Faults) -> RawConfig {
    loop {
        let [file, variables] = &*layers;
        let merged = Figment::new().merge(file).merge(variables);
        // Lossy: a text that says `true` or `8` will do for a flag or a number, but no number for a text.
        let error = match merged.extract_lossy::<RawConfig>() {
            Ok(raw) => return raw,
            Err(error) => error,
        };
        let key = error.path.join(".");
        let origin = origin_of(layers, &key);
        if let Some(problem) = problem_of(&key, error.kind) {
            faults.add(&key, origin, problem);
        }
        let removed = layers.iter_mut().rev().any(|layer| layer.remove(&error.path));
        if !removed {
            return RawConfig::default();
        }
    }
}

fn origin_of(layers: &[Layer], key: &str) -> Option<Origin> {
    layers.iter().rev().find_map(|layer| layer.origin_of(key))
}

/// `None` for a key without a value (`cache:` and nothing more), which is as good as not given.
fn problem_of(key: &str, kind: Kind) -> Option<Problem> {
    Some(match kind {
        Kind::InvalidType(Actual::Unit | Actual::Option, _) => return None,
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => Problem::WrongType {
            found: kind_of(&found),
            expected: in_plain_words(expected),
        },
        Kind::UnknownField(..) => Problem::UnknownKey {
            nearest: nearest_key(key),
        },
        Kind::UnknownVariant(found, known) => Problem::Malformed {
            reason: format!("{found:?} is not one of {}", known.join(", ")),
        },
        other => Problem::Malformed {
            reason: other.to_string(),
        },
    })
}

/// The kind of a value, never the value: it may be a secret in the wrong place.
fn kind_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "a truth value",
        Actual::Unsigned(_) | Actual::Float(_) => "a number",
        Actual::Signed(number) if *number < 0 => "a negative number",
        Actual::Signed(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a section",
        _ => "something else",
    }
}

/// serde names Rust's types; people write YAML.
fn in_plain_words(expected: String) -> String {
    match expected.as_str() {
        "a string" => "a text (put it in quotes)".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "usize" | "u64" | "u32" => "a whole number".to_owned(),
        "string or map" => "a text".to_owned(),
        other if other.starts_with("struct ") => "a section with keys of its own".to_owned(),
        _ => expected,
    }
}

/// The known key that an unknown one is most like: the same key of another section, else the fewest edits away.
fn nearest_key(unknown: &str) -> String {
    let last = |key: &str| key.rsplit('.').next().map(str::to_owned);
    known_keys()
        .into_iter()
        .min_by_key(|known| {
            let is_elsewhere = last(known) == last(unknown);
            (!is_elsewhere, strsim::damerau_levenshtein(unknown, known))
        })
        .unwrap_or_default()
}

/// The full paths of all sections and keys.
pub(super) fn known_keys() -> Vec<String> {
    fn walk(value: &Value, path: &str, keys: &mut Vec<String>) {
        if let Value::Dict(_, dict) = value {
            for (key, inner) in dict {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                walk(inner, &path, keys);
                keys.push(path);
            }
        }
    }
    let mut keys = Vec::new();
    if let Ok(defaults) = Value::serialize(RawConfig::default()) {
        walk(&defaults, "", &mut keys);
    }
    keys
}

#[cfg(test)]
mod tests;

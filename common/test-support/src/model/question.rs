//! Random queries about a registry, most of which have an answer.

use chrono::{SecondsFormat, TimeDelta};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use url::form_urlencoded;

use super::Registry;
use super::answer::View;
use super::generate::{ARCHITECTURES, ARTIFACT_TYPES, KEYS, OS, VALUES, pick};

/// A query.
#[derive(Debug)]
pub struct Question {
    /// Decoded parameters, as [`Registry::answer`] takes them.
    pub parameters: Vec<(String, String)>,
    /// The same as a query string, with what must change nothing: repetition, another order, unknown parameters.
    pub query_string: String,
    /// Names of the operators that it uses: `label:exists`, `tag`, `as_of time`, …
    pub operators: Vec<&'static str>,
    /// The number of the state that it asks about, if it asks about the past.
    pub number: Option<usize>,
}

/// Every operator of the query language.
pub const OPERATORS: [&str; 16] = [
    "repository",
    "repository:matches",
    "tag",
    "tag:matches",
    "os",
    "architecture",
    "digest",
    "artifact_type",
    "label",
    "label:exists",
    "label:matches",
    "annotation",
    "annotation:exists",
    "annotation:matches",
    "as_of time",
    "as_of revision",
];

/// Question `number` about a registry; three of four are about its history, and take turns through all of its states.
#[must_use]
pub fn ask(registry: &Registry, number: u64) -> Question {
    let mut rng = StdRng::seed_from_u64(number);
    let mut asking = Asking {
        parameters: Vec::new(),
        operators: Vec::new(),
    };
    let past = (!number.is_multiple_of(4)).then(|| asking.about_the_past(&mut rng, registry, number));
    let state = &registry.states[past.unwrap_or(registry.newest())];
    let views: Vec<View> = registry
        .tagged(state)
        .into_iter()
        .flat_map(|tagged| tagged.views.into_iter().chain(tagged.alone))
        .collect();
    let target = if rng.random_bool(0.85) {
        views.choose(&mut rng)
    } else {
        None
    };
    // One and the same tag answers for `tag` and `tag:matches`.
    let tag = target.and_then(|view| view.tags.choose(&mut rng)).map(String::as_str);
    let count = [0, 1, 1, 2, 2, 3, 3, 4, 5][rng.random_range(0..9)];
    for operator in OPERATORS[..14].sample(&mut rng, count) {
        let value = target.and_then(|view| asking.true_of(&mut rng, operator, view, tag));
        let is_true = value.is_some();
        asking
            .parameters
            .push(value.unwrap_or_else(|| anything(&mut rng, operator, &views)));
        asking.operators.push(operator);
        while rng.random_bool(0.3) {
            let (name, _) = asking.parameters.last().expect("just pushed").clone();
            let (other, value) = anything(&mut rng, operator, &views);
            let name = if is_true { name } else { other };
            asking.parameters.push((name, value));
        }
    }
    let query_string = encode(&mut rng, &asking.parameters);
    Question {
        parameters: asking.parameters,
        query_string,
        operators: asking.operators,
        number: past,
    }
}

struct Asking {
    parameters: Vec<(String, String)>,
    operators: Vec<&'static str>,
}

impl Asking {
    fn about_the_past(&mut self, rng: &mut StdRng, registry: &Registry, number: u64) -> usize {
        let number = usize::try_from(number).expect("small") % registry.states.len();
        if rng.random_bool(0.5) {
            self.operators.push("as_of revision");
            let revision = format!("{}.{number}", registry.era);
            self.parameters.push(("as_of".to_owned(), revision));
            return number;
        }
        self.operators.push("as_of time");
        let time = registry.times[number] + TimeDelta::nanoseconds(rng.random_range(0..1_000));
        let text = time.to_rfc3339_opts(SecondsFormat::Nanos, rng.random_bool(0.5));
        self.parameters.push(("as_of".to_owned(), text));
        registry.number_at(time)
    }

    /// A parameter of the operator that the view satisfies, if there is one.
    fn true_of(&self, rng: &mut StdRng, operator: &str, view: &View, tag: Option<&str>) -> Option<(String, String)> {
        let plain = |value: &str| Some((operator.to_owned(), value.to_owned()));
        let (family, test) = operator.split_once(':').unwrap_or((operator, ""));
        match family {
            "repository" | "tag" => {
                let value = if family == "tag" { tag? } else { &view.repository };
                if test == "matches" {
                    plain(&glob_of(rng, value))
                } else {
                    plain(value)
                }
            }
            "os" => plain(&view.image.os),
            "architecture" => plain(&view.image.architecture),
            "digest" => plain(view.digests.choose(rng)?),
            "artifact_type" => plain(&view.artifact_type),
            _ => {
                let texts = if family == "label" {
                    &view.image.labels
                } else {
                    view.annotations.choose(rng)?
                };
                let candidates: Vec<_> = texts
                    .iter()
                    // Equality cannot ask for a key that ends like a test.
                    .filter(|(key, _)| !test.is_empty() || is_plain_key(key))
                    .collect();
                let (key, value) = candidates.choose(rng)?;
                Some(text_parameter(rng, family, test, key, value))
            }
        }
    }
}

fn is_plain_key(key: &str) -> bool {
    !key.ends_with(":exists") && !key.ends_with(":matches")
}

fn text_parameter(rng: &mut StdRng, family: &str, test: &str, key: &str, value: &str) -> (String, String) {
    match test {
        "exists" => (format!("{family}:{key}:exists"), "1".to_owned()),
        "matches" => (format!("{family}:{key}:matches"), glob_of(rng, value)),
        _ => (format!("{family}:{key}"), value.to_owned()),
    }
}

/// A parameter of the operator, true or not.
fn anything(rng: &mut StdRng, operator: &str, views: &[View]) -> (String, String) {
    let (family, test) = operator.split_once(':').unwrap_or((operator, ""));
    let value = match family {
        "repository" => match views.choose(rng) {
            Some(view) => view.repository.clone(),
            None => "No Name".to_owned(),
        },
        "tag" => match views.choose(rng).and_then(|view| view.tags.choose(rng)) {
            Some(tag) => tag.clone(),
            None => String::new(),
        },
        "os" => pick(rng, &OS).to_owned(),
        "architecture" => pick(rng, &ARCHITECTURES).to_owned(),
        "digest" => match views.choose(rng).and_then(|view| view.digests.choose(rng)) {
            Some(digest) => digest.clone(),
            None => String::new(),
        },
        "artifact_type" => pick(rng, &ARTIFACT_TYPES).to_owned(),
        _ => {
            let key = loop {
                let key = pick(rng, &KEYS);
                if !test.is_empty() || is_plain_key(key) {
                    break key;
                }
            };
            let value = pick(rng, &VALUES);
            return text_parameter(rng, family, test, key, value);
        }
    };
    let value = if test == "matches" { glob_of(rng, &value) } else { value };
    (operator.to_owned(), value)
}

/// A pattern that matches `text`: some characters become `?`, some stretches `*`.
fn glob_of(rng: &mut StdRng, text: &str) -> String {
    let mut pattern = String::new();
    let mut stars = 0;
    let mut rest = text.chars();
    loop {
        if stars < 2 && rng.random_bool(0.15) {
            pattern.push('*');
            stars += 1;
            for _ in 0..rng.random_range(0..4) {
                rest.next();
            }
        }
        match rest.next() {
            None => return pattern,
            Some(_) if rng.random_bool(0.1) => pattern.push('?'),
            Some(literal) => pattern.push(literal),
        }
    }
}

fn encode(rng: &mut StdRng, parameters: &[(String, String)]) -> String {
    let mut pairs = parameters.to_vec();
    if let Some(repeated) = parameters.choose(rng)
        && rng.random_bool(0.3)
    {
        pairs.push(repeated.clone());
    }
    if rng.random_bool(0.3) {
        let unknown = *["unknown", "Tag", "label", "os:matches", "digest:exists", "é"]
            .choose(rng)
            .expect("a name");
        pairs.push((unknown.to_owned(), pick(rng, &VALUES).to_owned()));
    }
    pairs.shuffle(rng);
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

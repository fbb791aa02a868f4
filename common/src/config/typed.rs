//! From what was written to what is meant: every rule beyond the types of the values.

mod database;
mod registry;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::environment::Environment;
use super::fault::{Faults, Problem};
use super::load::Service;
use super::raw::{RawCache, RawConfig, RawEvents, RawInterval, RawListen, RawLog};
use super::secret::Secret;
use super::{Cache, Components, Config, Events, History, Interval, Limits, Listen, Log};

/// How deep serde_json follows nesting by itself.
const MAXIMUM_JSON_DEPTH: usize = 128;

impl TryFrom<(RawConfig, &Environment, Service)> for Config {
    type Error = Faults;

    fn try_from((raw, environment, service): (RawConfig, &Environment, Service)) -> Result<Self, Self::Error> {
        let mut faults = Faults::default();
        let registry = registry::registry(raw.registry, environment, service, &mut faults);
        let events = events(raw.events, service, &mut faults);
        let database = database::database(raw.database, environment, &mut faults);
        let limits = limits(raw.limits, &mut faults);
        let listen = listen(&raw.listen, &mut faults);
        let log = log(raw.log, &mut faults);
        let (Some(registry), Some(database), Some(listen), true) = (registry, database, listen, faults.is_empty())
        else {
            return Err(faults);
        };
        Ok(Self {
            registry,
            components: Components {
                web_ui: raw.components.web_ui,
                assert_endpoint: raw.components.assert_endpoint,
            },
            events,
            database,
            cache: cache(&raw.cache),
            interval: interval(&raw.interval),
            history: History {
                keep: raw.history.keep.0,
            },
            limits,
            listen,
            log,
        })
    }
}

impl Faults {
    /// Notes what is wrong with a key; where it was given is found out later.
    fn note(&mut self, key: &str, problem: Problem) {
        self.add(key, None, problem);
    }
}

fn events(raw: RawEvents, service: Service, faults: &mut Faults) -> Events {
    if service == Service::QueryApi {
        return Events {
            token: None,
            previous_token: None,
        };
    }
    let token = secret(
        ("events.token", &raw.token),
        ("events.token_file", &raw.token_file),
        faults,
    );
    let previous_token = secret(
        ("events.previous_token", &raw.previous_token),
        ("events.previous_token_file", &raw.previous_token_file),
        faults,
    );
    // Alone it would look like protection while /events is open.
    if previous_token.is_some() && raw.token.is_empty() && raw.token_file.is_empty() {
        let key = if raw.previous_token.is_empty() {
            "events.previous_token_file"
        } else {
            "events.previous_token"
        };
        faults.note(key, Problem::Needs { other: "events.token" });
    }
    Events { token, previous_token }
}

/// A secret by value or by file, each with its key; `None` if neither is given, or the file is bad.
fn secret(
    (value_key, value): (&str, &str),
    (file_key, file): (&'static str, &str),
    faults: &mut Faults,
) -> Option<Secret> {
    if file.is_empty() {
        return (!value.is_empty()).then(|| Secret::from_value(value));
    }
    if !value.is_empty() {
        faults.note(value_key, Problem::Excludes { other: file_key });
        return None;
    }
    match Secret::from_file(Path::new(file)) {
        Ok(secret) => Some(secret),
        Err(error) => {
            faults.note(file_key, Problem::SecretFile(error));
            None
        }
    }
}

fn path(text: String) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn cache(raw: &RawCache) -> Cache {
    Cache {
        max_age_index: raw.max_age_index.0,
        max_age_html: raw.max_age_html.0,
        stale_while_revalidate: raw.stale_while_revalidate.0,
        stale_if_error: raw.stale_if_error.0,
        memory: raw.memory.0,
    }
}

fn interval(raw: &RawInterval) -> Interval {
    let unless_never = |interval: super::duration::GoDuration| (!interval.0.is_zero()).then_some(interval.0);
    Interval {
        fetch_all: unless_never(raw.fetch_all),
        garbage_collect: unless_never(raw.garbage_collect),
    }
}

fn limits(limits: Limits, faults: &mut Faults) -> Limits {
    let zeros = [
        ("limits.manifest", limits.manifest == 0),
        ("limits.config", limits.config == 0),
        ("limits.notification", limits.notification == 0),
        ("limits.json_depth", limits.json_depth == 0),
        ("limits.index_depth", limits.index_depth == 0),
        ("limits.index_members", limits.index_members == 0),
        ("limits.fetches_per_tag", limits.fetches_per_tag == 0),
        ("limits.query_string", limits.query_string == 0),
        ("limits.query_terms", limits.query_terms == 0),
        ("limits.query_keys", limits.query_keys == 0),
        ("limits.page_size", limits.page_size == 0),
    ];
    for (key, is_zero) in zeros {
        if is_zero {
            faults.note(key, Problem::Zero);
        }
    }
    if limits.json_depth > MAXIMUM_JSON_DEPTH {
        faults.note(
            "limits.json_depth",
            Problem::TooLarge {
                maximum: MAXIMUM_JSON_DEPTH as u64,
            },
        );
    }
    limits
}

fn listen(raw: &RawListen, faults: &mut Faults) -> Option<Listen> {
    let mut address = |key: &str, text: &str| -> Option<SocketAddr> {
        let parsed = text.trim().parse().ok();
        if parsed.is_none() {
            let value = text.to_owned();
            faults.note(key, Problem::NotAddress { value });
        }
        parsed
    };
    let query_api = address("listen.query_api", &raw.query_api);
    let query_api_admin = address("listen.query_api_admin", &raw.query_api_admin);
    let indexer = address("listen.indexer", &raw.indexer);
    let indexer_admin = address("listen.indexer_admin", &raw.indexer_admin);
    let listen = Listen {
        query_api: query_api?,
        query_api_admin: query_api_admin?,
        indexer: indexer?,
        indexer_admin: indexer_admin?,
    };
    let pairs = [
        (
            "listen.query_api_admin",
            listen.query_api_admin,
            "listen.query_api",
            listen.query_api,
        ),
        (
            "listen.indexer_admin",
            listen.indexer_admin,
            "listen.indexer",
            listen.indexer,
        ),
    ];
    for (key, admin, other, public) in pairs {
        // Port 0 is a free one each time.
        if admin == public && admin.port() != 0 {
            faults.note(key, Problem::SameAddress { other });
        }
    }
    Some(listen)
}

fn log(raw: RawLog, faults: &mut Faults) -> Log {
    // A word that is no level would be taken for the name of a target, and nothing be logged.
    let is_sound = raw
        .level
        .split(',')
        .all(|directive| directive.contains('=') || directive.trim().parse::<LevelFilter>().is_ok())
        && EnvFilter::try_new(&raw.level).is_ok();
    if !is_sound {
        faults.note("log.level", Problem::NotLogLevel);
    }
    Log {
        format: raw.format,
        level: raw.level,
    }
}

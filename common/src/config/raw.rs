//! The configuration as it is written, with its defaults; `typed` makes sense of it.
//!
//! An optional text is empty when it is not given. [`super::Limits`] needs no raw twin.

use serde::{Deserialize, Serialize};

use super::byte_size::ByteSize;
use super::duration::GoDuration;
use super::{Limits, LogFormat};

const fn seconds(seconds: u64) -> GoDuration {
    GoDuration(std::time::Duration::from_secs(seconds))
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) registry: RawRegistry,
    pub(super) components: RawComponents,
    pub(super) events: RawEvents,
    pub(super) database: RawDatabase,
    pub(super) cache: RawCache,
    pub(super) interval: RawInterval,
    pub(super) history: RawHistory,
    pub(super) limits: Limits,
    pub(super) listen: RawListen,
    pub(super) log: RawLog,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRegistry {
    pub(super) url: String,
    pub(super) public_url: String,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) password_file: String,
    #[serde(deserialize_with = "super::list::deserialize")]
    pub(super) token_realms: Vec<String>,
    pub(super) ca_file: String,
    pub(super) client_certificate_file: String,
    pub(super) client_key_file: String,
    pub(super) catalog: bool,
    pub(super) repositories: RawRepositories,
    pub(super) timeout: GoDuration,
    pub(super) concurrency: usize,
}

impl Default for RawRegistry {
    fn default() -> Self {
        Self {
            url: String::new(),
            public_url: String::new(),
            username: String::new(),
            password: String::new(),
            password_file: String::new(),
            token_realms: Vec::new(),
            ca_file: String::new(),
            client_certificate_file: String::new(),
            client_key_file: String::new(),
            catalog: true,
            repositories: RawRepositories::default(),
            timeout: seconds(30),
            concurrency: 32,
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRepositories {
    #[serde(deserialize_with = "super::list::deserialize")]
    pub(super) include: Vec<String>,
    #[serde(deserialize_with = "super::list::deserialize")]
    pub(super) exclude: Vec<String>,
}

impl Default for RawRepositories {
    fn default() -> Self {
        Self {
            include: vec!["**".to_owned()],
            exclude: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawComponents {
    pub(super) web_ui: bool,
    pub(super) assert_endpoint: bool,
}

impl Default for RawComponents {
    fn default() -> Self {
        Self {
            web_ui: true,
            assert_endpoint: false,
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawEvents {
    pub(super) token: String,
    pub(super) token_file: String,
    pub(super) previous_token: String,
    pub(super) previous_token_file: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDatabase {
    pub(super) postgres: RawPostgres,
    pub(super) statement_timeout: GoDuration,
    pub(super) migrate_on_start: bool,
}

impl Default for RawDatabase {
    fn default() -> Self {
        Self {
            postgres: RawPostgres::default(),
            statement_timeout: seconds(2),
            migrate_on_start: true,
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawPostgres {
    pub(super) url: String,
    pub(super) url_file: String,
    pub(super) pool_size: usize,
}

impl Default for RawPostgres {
    fn default() -> Self {
        Self {
            url: String::new(),
            url_file: String::new(),
            pool_size: 8,
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCache {
    pub(super) max_age_index: GoDuration,
    pub(super) max_age_html: GoDuration,
    pub(super) stale_while_revalidate: GoDuration,
    pub(super) stale_if_error: GoDuration,
    pub(super) memory: ByteSize,
}

impl Default for RawCache {
    fn default() -> Self {
        Self {
            max_age_index: seconds(5),
            max_age_html: seconds(5),
            stale_while_revalidate: seconds(30),
            stale_if_error: seconds(DAY),
            memory: ByteSize(64 * 1024 * 1024),
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawInterval {
    pub(super) fetch_all: GoDuration,
    pub(super) garbage_collect: GoDuration,
}

impl Default for RawInterval {
    fn default() -> Self {
        Self {
            fetch_all: seconds(HOUR),
            garbage_collect: seconds(30 * MINUTE),
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHistory {
    pub(super) keep: GoDuration,
}

impl Default for RawHistory {
    fn default() -> Self {
        Self {
            keep: seconds(90 * DAY),
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawListen {
    pub(super) query_api: String,
    pub(super) query_api_admin: String,
    pub(super) indexer: String,
    pub(super) indexer_admin: String,
}

impl Default for RawListen {
    fn default() -> Self {
        Self {
            query_api: "0.0.0.0:8088".to_owned(),
            query_api_admin: "0.0.0.0:9088".to_owned(),
            indexer: "0.0.0.0:8089".to_owned(),
            indexer_admin: "0.0.0.0:9089".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) format: LogFormat,
    pub(super) level: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: "info".to_owned(),
        }
    }
}

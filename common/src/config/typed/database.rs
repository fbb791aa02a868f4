//! The section `database`.

use crate::config::environment::Environment;
use crate::config::fault::{Faults, Problem};
use crate::config::raw::RawDatabase;
use crate::config::secret::Secret;
use crate::config::{Database, Postgres};

use super::secret;

pub(super) fn database(raw: RawDatabase, environment: &Environment, faults: &mut Faults) -> Option<Database> {
    if raw.statement_timeout.0.is_zero() {
        faults.note("database.statement_timeout", Problem::Zero);
    }
    if raw.postgres.pool_size == 0 {
        faults.note("database.postgres.pool_size", Problem::Zero);
    }
    let url_key = if raw.postgres.url_file.is_empty() {
        "database.postgres.url"
    } else {
        "database.postgres.url_file"
    };
    let given = secret(
        ("database.postgres.url", &raw.postgres.url),
        ("database.postgres.url_file", &raw.postgres.url_file),
        faults,
    );
    let is_given = !raw.postgres.url.is_empty() || !raw.postgres.url_file.is_empty();
    if is_given && given.is_none() {
        return None;
    }
    let postgres = Postgres {
        // Without a URL everything comes from the PG* variables and the defaults.
        url: given.unwrap_or_else(|| Secret::from_value("")),
        environment: environment.postgres(),
        pool_size: raw.postgres.pool_size,
    };
    if let Err(error) = postgres.conninfo() {
        faults.note(
            url_key,
            Problem::Malformed {
                reason: error.to_string(),
            },
        );
    }
    Some(Database {
        postgres,
        statement_timeout: raw.statement_timeout.0,
        migrate_on_start: raw.migrate_on_start,
    })
}

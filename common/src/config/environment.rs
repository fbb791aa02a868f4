//! The process environment, as far as it configures Flagstate.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::{User, geteuid};
use url::Url;

use super::PostgresEnvironment;
use super::fault::{Faults, Origin, Problem};
use super::layer;
use super::secret::Secret;

/// Environment variables, and what the operating system knows about the user.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// All variables; the text of most is nobody's business.
    pub(super) variables: BTreeMap<String, String>,
    user: Option<String>,
    home: Option<PathBuf>,
}

/// The variables without the prefix that are read.
const FOREIGN_VARIABLES: [&str; 13] = [
    "PGHOST",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGDATABASE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "HOME",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
];

impl Environment {
    /// What this process was started with.
    #[allow(clippy::disallowed_methods, reason = "this is where the environment is read")]
    pub(super) fn of_this_process(faults: &mut Faults) -> Self {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            let is_ours = layer::path_of(&name).is_some();
            if !is_ours && !FOREIGN_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            match value.into_string() {
                Ok(value) => {
                    variables.insert(name, value);
                }
                Err(_not_utf8) => {
                    faults.add("", Some(Origin::Environment(name)), Problem::NotUtf8);
                }
            }
        }
        let user = User::from_uid(geteuid()).ok().flatten();
        Self {
            variables,
            home: user.as_ref().map(|user| user.dir.clone()),
            user: user.map(|user| user.name),
        }
    }

    /// These variables, and no user.
    pub(super) fn of_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            variables: variables.into_iter().collect(),
            user: None,
            home: None,
        }
    }

    /// What the `PG*` variables say; an empty one says nothing, as for libpq.
    pub(super) fn postgres(&self) -> PostgresEnvironment {
        let text = |name: &str| self.get(name).map(str::to_owned);
        PostgresEnvironment {
            host: text("PGHOST"),
            port: text("PGPORT"),
            user: text("PGUSER"),
            password: self.get("PGPASSWORD").map(Secret::from_value),
            passfile: self.get("PGPASSFILE").map(PathBuf::from),
            database: text("PGDATABASE"),
            sslmode: text("PGSSLMODE"),
            sslrootcert: self.get("PGSSLROOTCERT").map(PathBuf::from),
            home: self.get("HOME").map(PathBuf::from).or_else(|| self.home.clone()),
            system_user: self.user.clone(),
        }
    }

    /// The proxy for `https`, always with a scheme; curl's form without one means `http`.
    pub(super) fn https_proxy(&self, faults: &mut Faults) -> Option<Secret> {
        let variable = ["HTTPS_PROXY", "https_proxy"]
            .into_iter()
            .find(|name| self.get(name).is_some())?;
        let given = self.get(variable)?;
        let url = if given.contains("://") {
            given.to_owned()
        } else {
            format!("http://{given}")
        };
        let is_proxy = Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_proxy {
            faults.add(variable, None, Problem::NotProxy);
        }
        Some(Secret::from_value(&url))
    }

    /// Hosts that are reached without the proxy.
    pub(super) fn no_proxy(&self) -> Option<String> {
        self.get("NO_PROXY").or_else(|| self.get("no_proxy")).map(str::to_owned)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

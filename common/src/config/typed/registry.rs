//! The section `registry`.

use url::Url;

use crate::config::environment::Environment;
use crate::config::fault::{Faults, Problem};
use crate::config::layer::variable_of;
use crate::config::load::Service;
use crate::config::raw::{RawRegistry, RawRepositories};
use crate::config::repository_filter::RepositoryPattern;
use crate::config::{ClientIdentity, Credentials, Registry, RepositoryFilter};

use super::{path, secret};

pub(super) fn registry(
    mut raw: RawRegistry,
    environment: &Environment,
    service: Service,
    faults: &mut Faults,
) -> Option<Registry> {
    if service == Service::QueryApi {
        raw = without_secrets(raw);
    }
    if raw.timeout.0.is_zero() {
        faults.note("registry.timeout", Problem::Zero);
    }
    if raw.concurrency == 0 {
        faults.note("registry.concurrency", Problem::Zero);
    }
    let url = base_url(&raw.url, faults);
    let public_url = public_url(&raw.public_url, url.as_ref(), faults);
    let credentials = credentials(&raw, faults);
    let token_realms = token_realms(&raw.token_realms, faults);
    let repositories = repositories(&raw.repositories, faults);
    let client_identity = client_identity(raw.client_certificate_file, raw.client_key_file, faults);
    let https_proxy = environment.https_proxy(faults);
    Some(Registry {
        url: url?,
        public_url,
        credentials,
        token_realms,
        ca_file: path(raw.ca_file),
        client_identity,
        catalog: raw.catalog,
        repositories,
        timeout: raw.timeout.0,
        concurrency: raw.concurrency,
        https_proxy,
        no_proxy: environment.no_proxy(),
    })
}

/// What query-api may know.
fn without_secrets(raw: RawRegistry) -> RawRegistry {
    RawRegistry {
        username: String::new(),
        password: String::new(),
        password_file: String::new(),
        client_certificate_file: String::new(),
        client_key_file: String::new(),
        ..raw
    }
}

fn base_url(text: &str, faults: &mut Faults) -> Option<Url> {
    const KEY: &str = "registry.url";
    if text.is_empty() {
        let variable = variable_of(KEY);
        faults.note(KEY, Problem::Missing { variable });
        return None;
    }
    let Some(url) = http_url(text) else {
        faults.note(KEY, Problem::NotHttp);
        return None;
    };
    if has_more_than_path(&url) {
        faults.note(KEY, Problem::TooMuchUrl);
    }
    if url.path().trim_end_matches('/').ends_with("/v2") {
        faults.note(KEY, Problem::HasApiPath);
    }
    Some(url)
}

fn http_url(text: &str) -> Option<Url> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn has_more_than_path(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some()
}

fn public_url(text: &str, url: Option<&Url>, faults: &mut Faults) -> String {
    const KEY: &str = "registry.public_url";
    let Some(base) = url else {
        return text.to_owned();
    };
    if text.is_empty() {
        return base.to_string();
    }
    let is_clean = !text.contains(|character: char| character.is_whitespace() || character.is_control());
    match base.join(text) {
        Ok(joined) if is_clean && http_url(joined.as_str()).is_some() => {
            if has_more_than_path(&joined) {
                faults.note(KEY, Problem::TooMuchUrl);
            }
        }
        _ => faults.note(KEY, Problem::NotPublicUrl),
    }
    text.to_owned()
}

fn credentials(raw: &RawRegistry, faults: &mut Faults) -> Option<Credentials> {
    let password_key = match (raw.password.is_empty(), raw.password_file.is_empty()) {
        (false, _) => Some("registry.password"),
        (true, false) => Some("registry.password_file"),
        (true, true) => None,
    };
    match (raw.username.is_empty(), password_key) {
        (true, Some(key)) => faults.note(
            key,
            Problem::Needs {
                other: "registry.username",
            },
        ),
        (false, None) => faults.note(
            "registry.username",
            Problem::Needs {
                other: "registry.password",
            },
        ),
        (true, None) | (false, Some(_)) => {}
    }
    let password = secret(
        ("registry.password", &raw.password),
        ("registry.password_file", &raw.password_file),
        faults,
    )?;
    Some(Credentials {
        username: raw.username.clone(),
        password,
    })
}

fn token_realms(texts: &[String], faults: &mut Faults) -> Vec<String> {
    let mut realms = Vec::with_capacity(texts.len());
    for text in texts {
        match host_and_port(text) {
            Some(realm) => realms.push(realm),
            None => {
                let value = text.clone();
                faults.note("registry.token_realms", Problem::NotHost { value });
            }
        }
    }
    realms
}

/// `host` or `host:port`, in the lower case that URLs have it in.
fn host_and_port(text: &str) -> Option<String> {
    // With a scheme that has no default port, so that each port stays as given.
    let url = Url::parse(&format!("realm://{text}")).ok()?;
    let is_bare = url.path().is_empty() && !has_more_than_path(&url);
    let host = url.host_str().filter(|host| is_bare && !host.is_empty())?;
    let host = Url::parse(&format!("https://{host}")).ok()?.host_str()?.to_owned();
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

fn client_identity(certificate_file: String, key_file: String, faults: &mut Faults) -> Option<ClientIdentity> {
    const CERTIFICATE: &str = "registry.client_certificate_file";
    const KEY: &str = "registry.client_key_file";
    match (path(certificate_file), path(key_file)) {
        (Some(certificate_file), Some(key_file)) => Some(ClientIdentity {
            certificate_file,
            key_file,
        }),
        (Some(_), None) => {
            faults.note(CERTIFICATE, Problem::Needs { other: KEY });
            None
        }
        (None, Some(_)) => {
            faults.note(KEY, Problem::Needs { other: CERTIFICATE });
            None
        }
        (None, None) => None,
    }
}

fn repositories(raw: &RawRepositories, faults: &mut Faults) -> RepositoryFilter {
    let mut patterns = |key: &str, texts: &[String]| -> Vec<RepositoryPattern> {
        let mut patterns = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse() {
                Ok(pattern) => patterns.push(pattern),
                Err(source) => {
                    let pattern = text.clone();
                    faults.note(key, Problem::Pattern { pattern, source });
                }
            }
        }
        patterns
    };
    let include = patterns("registry.repositories.include", &raw.include);
    let exclude = patterns("registry.repositories.exclude", &raw.exclude);
    // Nothing at all would hide everything at once, by a slip in an environment variable.
    if raw.include.is_empty() {
        faults.note("registry.repositories.include", Problem::NoPattern);
    }
    RepositoryFilter::new(include, exclude)
}

//! Which token endpoints are asked, and which of them may see the credentials.
//!
//! Whoever can make the registry answer 401 can name any realm. A realm gets name and password only on the
//! registry's own host or on a host of `registry.token_realms`, and over `http` only if the registry itself is
//! `http` on that host. Any other realm may still be asked for a token without credentials.

use flagstate_common::config;
use url::Url;

use super::error::RealmRefusal;

/// A token endpoint that may be asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Realm {
    pub(super) url: Url,
    /// Whether it may see the credentials.
    pub(super) is_trusted: bool,
}

/// The rule, from the configuration.
#[derive(Clone, Debug)]
pub(super) struct RealmRule {
    registry: Url,
    trusted_hosts: Vec<String>,
}

impl RealmRule {
    pub(super) fn new(config: &config::Registry) -> Self {
        Self {
            registry: config.url.clone(),
            trusted_hosts: config.token_realms.clone(),
        }
    }

    /// Judges the realm of a challenge.
    pub(super) fn judge(&self, realm: &str) -> Result<Realm, RealmRefusal> {
        let url: Url = realm.parse().or(Err(RealmRefusal::NotUrl))?;
        let Some(host) = url.host_str() else {
            return Err(RealmRefusal::NotUrl);
        };
        let brings_credentials = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || brings_credentials {
            return Err(RealmRefusal::NotPlain);
        }
        let is_encrypted = url.scheme() == "https";
        if !is_encrypted && self.registry.scheme() == "https" {
            return Err(RealmRefusal::Downgrade);
        }
        let is_own_host = self.registry.host_str() == Some(host);
        let is_trusted = is_own_host || (is_encrypted && self.names(host, &url));
        Ok(Realm { url, is_trusted })
    }

    /// Whether the configuration names the host, with any port or with this one.
    fn names(&self, host: &str, url: &Url) -> bool {
        let port = url.port_or_known_default().unwrap_or_default();
        let with_port = format!("{host}:{port}");
        self.trusted_hosts
            .iter()
            .any(|trusted| trusted.eq_ignore_ascii_case(host) || trusted.eq_ignore_ascii_case(&with_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(registry: &str, trusted: &[&str], realm: &str) -> Result<bool, RealmRefusal> {
        let rule = RealmRule {
            registry: registry.parse().expect("valid"),
            trusted_hosts: trusted.iter().map(|host| (*host).to_owned()).collect(),
        };
        rule.judge(realm).map(|realm| realm.is_trusted)
    }

    #[test]
    fn credentials_go_to_the_registrys_host_and_to_named_hosts_over_https() {
        let named = ["auth.example", "auth.example.net:8443", "[2001:db8::1]"];
        for (realm, expected) in [
            ("https://r.example/token", Ok(true)),
            ("https://R.EXAMPLE:5001/token", Ok(true)),
            ("https://auth.example/token", Ok(true)),
            ("https://AUTH.example:444/token", Ok(true)),
            ("https://auth.example.net:8443/token", Ok(true)),
            ("https://[2001:db8::1]/token", Ok(true)),
            ("https://auth.example.net/token", Ok(false)),
            ("https://evil.example/token", Ok(false)),
            ("https://r.example.evil/token", Ok(false)),
            ("https://evil.example/r.example", Ok(false)),
            ("http://auth.example/token", Err(RealmRefusal::Downgrade)),
            ("http://r.example/token", Err(RealmRefusal::Downgrade)),
            ("https://r.example@evil.example/", Err(RealmRefusal::NotPlain)),
            ("ftp://r.example/token", Err(RealmRefusal::NotPlain)),
            ("file:///token", Err(RealmRefusal::NotUrl)),
            ("/token", Err(RealmRefusal::NotUrl)),
            ("", Err(RealmRefusal::NotUrl)),
        ] {
            assert_eq!(judge("https://r.example", &named, realm), expected, "{realm}");
        }
    }

    #[test]
    fn credentials_go_over_http_only_to_an_http_registry_itself() {
        for (realm, expected) in [
            ("http://r.example:5001/token", Ok(true)),
            ("https://r.example/token", Ok(true)),
            ("http://auth.example/token", Ok(false)),
            ("https://auth.example/token", Ok(true)),
        ] {
            let named = ["auth.example"];
            assert_eq!(judge("http://r.example:5000", &named, realm), expected, "{realm}");
        }
    }
}

//! Name resolution for foreign hosts, which refuses addresses that the registry may not send us to.
//!
//! The check stands where the connection is opened, on the addresses it will use: a name that resolves to
//! something else a moment later (DNS rebinding) gains nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

use super::address::AddressClass;

/// A foreign host has no address that may be connected to.
#[derive(Clone, Debug, Error)]
#[error("{host} is at an address that the registry may not send us to")]
pub(super) struct AddressRefused {
    pub(super) host: String,
}

/// Judges the addresses of foreign hosts by those of the registry.
#[derive(Clone, Debug)]
pub(super) struct AddressGuard {
    registry: Arc<Url>,
    /// The proxy's host, which the operator chose.
    proxy: Option<Arc<str>>,
}

impl AddressGuard {
    pub(super) fn new(registry: &Url, proxy: Option<&Url>) -> Self {
        Self {
            registry: Arc::new(registry.clone()),
            proxy: proxy.and_then(Url::host_str).map(Arc::from),
        }
    }

    /// Refuses a URL whose host is an address, which is never resolved and so never reaches the resolver.
    pub(super) async fn check_literal(&self, url: &Url) -> Result<(), AddressRefused> {
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        let class = AddressClass::of(address);
        if class.may_be_reached_from(self.registry_class().await) {
            return Ok(());
        }
        Err(AddressRefused {
            host: address.to_string(),
        })
    }

    /// How near the registry is; public when that cannot be told.
    async fn registry_class(&self) -> AddressClass {
        match self.registry.host() {
            Some(Host::Ipv4(address)) => AddressClass::of(address.into()),
            Some(Host::Ipv6(address)) => AddressClass::of(address.into()),
            Some(Host::Domain(name)) => match look_up(name).await {
                Ok(addresses) => AddressClass::of_all(addresses.iter().map(SocketAddr::ip)),
                Err(_) => AddressClass::Public,
            },
            None => AddressClass::Public,
        }
    }

    async fn resolve(&self, host: String) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let mut addresses = look_up(&host).await?;
        if self.proxy.as_deref() == Some(host.as_str()) {
            return Ok(addresses);
        }
        let registry = self.registry_class().await;
        addresses.retain(|address| AddressClass::of(address.ip()).may_be_reached_from(registry));
        if addresses.is_empty() {
            return Err(AddressRefused { host }.into());
        }
        Ok(addresses)
    }
}

/// The system's resolver. Port 0 is replaced by the caller.
async fn look_up(host: &str) -> std::io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.collect())
}

impl Resolve for AddressGuard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let addresses = guard.resolve(name.as_str().to_owned()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(registry: &str, proxy: Option<&str>) -> AddressGuard {
        let proxy = proxy.map(|url| url.parse::<Url>().expect("valid"));
        AddressGuard::new(&registry.parse().expect("valid"), proxy.as_ref())
    }

    #[tokio::test]
    async fn a_public_registry_cannot_name_an_inner_address() {
        let guard = guard("https://203.0.113.7", None);
        for url in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
        ] {
            let url: Url = url.parse().expect("valid");
            assert!(guard.check_literal(&url).await.is_err(), "{url}");
        }
        let public: Url = "https://198.51.100.1/".parse().expect("valid");
        assert!(guard.check_literal(&public).await.is_ok());
    }

    #[tokio::test]
    async fn a_name_is_judged_by_the_addresses_it_has_when_it_is_connected_to() {
        let resolve = async |guard: AddressGuard| guard.resolve("localhost".to_owned()).await;
        assert!(resolve(guard("https://203.0.113.7", None)).await.is_err());
        assert!(resolve(guard("http://10.0.0.1", None)).await.is_err());
        assert!(resolve(guard("http://127.0.0.1", None)).await.is_ok());
        assert!(resolve(guard("http://localhost", None)).await.is_ok());
        let proxied = guard("https://203.0.113.7", Some("http://localhost:3128"));
        assert!(resolve(proxied).await.is_ok());
    }
}

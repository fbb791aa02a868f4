//! Reading a registry: the OCI distribution API, spoken carefully to a peer that may be hostile, slow or busy.
//!
//! [`RegistryClient`] is the only door. Behind it, from the outside in:
//!
//! - `catalog`, `tags`, `manifests`: one file for each thing that can be asked, with what its answers mean;
//!   `paging` and `link` are what the two lists have in common.
//! - `client`: one call, that is: a slot of the `gate`, authentication, and up to [`MAX_TRIES`] tries.
//! - `auth`: which `Authorization` a call carries (`challenge`, `realm` and `token` are its parts).
//! - `exchange`: one HTTP exchange under one deadline: redirects, `Retry-After`, and a body with an end.
//! - `transport`: sockets, TLS, proxies, and which addresses may be connected to (`address`, `resolver`).
//!
//! Flagstate sends a registry nothing but GET and HEAD.

mod address;
mod auth;
mod body;
mod catalog;
mod challenge;
mod client;
mod concurrency;
mod error;
mod exchange;
mod gate;
mod link;
mod manifests;
mod metrics;
mod paging;
mod realm;
mod redirect;
mod resolver;
mod retry;
mod tags;
mod token;
mod transport;

pub use catalog::CatalogPages;
pub use client::{MAX_TRIES, RegistryClient};
pub use error::{BadBody, BuildClientError, RealmRefusal, RedirectRefusal, RegistryError};
pub use manifests::{FetchedManifest, ManifestHead};
pub use metrics::{METRICS, RegistryMetrics};
pub use tags::{TagPage, TagPages};

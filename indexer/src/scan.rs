//! From the registry to the index: observe (network, no transaction), plan (pure), apply (one transaction).

pub mod flights;
pub mod hint;
pub mod manifest;
pub mod observation;
pub mod observe;
pub mod plan;
pub mod progress;
pub mod schedule;
pub mod worker;

//! Keeps Flagstate's index equal to a container registry: the only part of Flagstate that writes.

pub mod registry;

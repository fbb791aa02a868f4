//! Nothing: this package is its tests, `tests/it`. They start the binaries of both services, which `cargo xtask test` and
//! `cargo build --workspace` put beside them.

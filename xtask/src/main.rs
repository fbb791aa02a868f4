//! `cargo xtask`: the commands that people type while working on Flagstate.

#![allow(clippy::print_stdout, reason = "these commands talk to people")]

mod cargo;
mod packages;
mod schema;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The commands that people type while working on Flagstate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Brings the whole system up on this machine until Ctrl-C: registry, database, both services and the proxy.
    Up(up::Arguments),
    /// Runs all tests and checks, as CI does.
    Test(test::Arguments),
    /// Writes docs/SCHEMA.md from a migrated database.
    Schema,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Test(arguments) => test::run(arguments).await,
        Command::Schema => schema::write().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

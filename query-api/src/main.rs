//! `flagstate-query-api`: answers questions about a container registry from Flagstate's index.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flagstate_common::config::{Config, Service};
use flagstate_common::{build, healthcheck, shutdown, telemetry};
use flagstate_query_api::app::{App, DRAIN_PAUSE};

/// Exit code for configuration that cannot be used (`EX_USAGE` of sysexits).
const BAD_CONFIGURATION: u8 = 64;

/// Answers questions about a container registry from Flagstate's index.
#[derive(Parser)]
#[command(name = "flagstate-query-api", version = build::long_version())]
struct Cli {
    /// The configuration; /etc/flagstate/config.yaml if it is there.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Subcommand)]
enum Command {
    /// Answers questions (the default).
    Run,
    /// Says whether the configuration can be used.
    CheckConfig,
    /// Says whether the query-api on this machine is alive.
    Healthcheck,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref(), Service::QueryApi) {
        Ok(config) => config,
        Err(faults) => {
            tell(&faults.to_string());
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match execute(cli.command.unwrap_or(Command::Run), &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Run => {
                telemetry::install(&config.log)?;
                let app = App::bind(config, shutdown::on_signal()?)?;
                app.run(DRAIN_PAUSE).await?;
            }
            Command::CheckConfig => tell("the configuration can be used"),
            Command::Healthcheck => healthcheck::check(config.listen.query_api_admin).await?,
        }
        Ok(())
    })
}

/// Says something to the person or script that runs the command.
fn tell(text: &str) {
    // Nobody is left to be told that standard error is gone.
    drop(writeln!(std::io::stderr(), "{text}"));
}

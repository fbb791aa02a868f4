//! `flagstate-indexer`: keeps Flagstate's index equal to a container registry.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use flagstate_common::config::{Config, Service};
use flagstate_common::{build, healthcheck, shutdown, telemetry};
use flagstate_indexer::app::{self, Parts};
use flagstate_indexer::gc;
use flagstate_indexer::store::{RequestKind, ScanProgress, grant_read, migrate};

/// Exit code for configuration that cannot be used (`EX_USAGE` of sysexits).
const BAD_CONFIGURATION: u8 = 64;
/// How often `scan` asks how far the writer is.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Keeps Flagstate's index equal to a container registry.
#[derive(Parser)]
#[command(name = "flagstate-indexer", version = build::long_version())]
struct Cli {
    /// The configuration; /etc/flagstate/config.yaml if it is there.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Receives notifications, scans, and writes the index (the default).
    Run {
        /// Accept that the index is of another registry than the configured one.
        #[arg(long)]
        adopt: bool,
    },
    /// Brings the schema up to date.
    Migrate {
        /// Let this role read the index, and nothing else: query-api's.
        #[arg(long, value_name = "ROLE")]
        grant_read_to: Option<String>,
    },
    /// Scans the whole registry once, or has the running indexer do it.
    Scan {
        /// Accept that the index is of another registry than the configured one.
        #[arg(long)]
        adopt: bool,
    },
    /// Removes from the index what nothing needs, or has the running indexer do it.
    Gc,
    /// Says whether the configuration can be used.
    CheckConfig,
    /// Says whether the indexer on this machine is alive.
    Healthcheck,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(cli.config.as_deref().map(Path::new), Service::Indexer) {
        Ok(config) => config,
        Err(faults) => {
            tell(&faults.to_string());
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&format!("no threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let command = cli.command.unwrap_or(Command::Run { adopt: false });
    match runtime.block_on(execute(command, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command, config: Config) -> anyhow::Result<()> {
    match command {
        Command::Run { adopt } => {
            telemetry::install(&config.log)?;
            let shutdown = shutdown::on_signal()?;
            Ok(app::run(config, adopt, shutdown).await?)
        }
        Command::Migrate { grant_read_to } => {
            let parts = Parts::new(config)?;
            let applied = migrate(&parts.pool).await?;
            match applied.as_slice() {
                [] => tell("the schema is up to date"),
                applied => tell(&format!("applied {}", applied.join(", "))),
            }
            if let Some(role) = grant_read_to {
                grant_read(&parts.pool, &role).await?;
                tell(&format!("{role} may read"));
            }
            Ok(())
        }
        Command::Scan { adopt } => scan(Parts::new(config)?, adopt).await,
        Command::Gc => collect(Parts::new(config)?).await,
        Command::CheckConfig => {
            Parts::new(config)?;
            tell("the configuration can be used");
            Ok(())
        }
        Command::Healthcheck => Ok(healthcheck::check(config.listen.indexer_admin).await?),
    }
}

/// Scans under a lease of this process's own if nobody has it, else asks the writer and follows it.
async fn scan(parts: Parts, adopt: bool) -> anyhow::Result<()> {
    let mut bar = ProgressLine::default();
    match parts.leader.try_begin(adopt).await? {
        Ok(term) => {
            let summary = parts
                .leader
                .scan_once(&term, |progress| bar.show(progress.done, progress.known))
                .await;
            parts.leader.end(&term).await;
            let summary = summary?;
            bar.end();
            tell(&summary.to_string());
            anyhow::ensure!(summary.is_complete && summary.failed == 0, "the scan is not complete");
            Ok(())
        }
        Err(holder) => follow(&parts, RequestKind::Scan, &holder, &mut bar).await,
    }
}

/// Collects under a lease of this process's own if nobody has it, else asks the writer.
async fn collect(parts: Parts) -> anyhow::Result<()> {
    match parts.leader.try_begin(false).await? {
        Ok(term) => {
            let swept = parts.leader.collect_once(&term).await;
            parts.leader.end(&term).await;
            tell(&gc::sentence(&swept?));
            Ok(())
        }
        Err(holder) => follow(&parts, RequestKind::Gc, &holder, &mut ProgressLine::default()).await,
    }
}

/// Asks the writer for something, and waits until it is done.
async fn follow(parts: &Parts, kind: RequestKind, holder: &str, bar: &mut ProgressLine) -> anyhow::Result<()> {
    tell(&format!("the indexer {holder} is the writer; it is asked to do it"));
    let requests = parts.requests();
    let request = requests.ask(kind).await?;
    loop {
        let state = requests
            .follow(request)
            .await
            .context("the request cannot be followed")?;
        if let Some(outcome) = state.outcome {
            bar.end();
            tell(&outcome);
            return Ok(());
        }
        if state.started && kind == RequestKind::Scan {
            bar.show(u64::try_from(state.done)?, u64::try_from(state.known)?);
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// One line on a terminal that tells how far a scan is; nothing elsewhere.
#[derive(Default)]
struct ProgressLine {
    shown: Option<ScanProgress>,
}

impl ProgressLine {
    fn show(&mut self, done: u64, known: u64) {
        let progress = ScanProgress {
            done,
            known,
            ..ScanProgress::default()
        };
        let mut terminal = std::io::stderr();
        if self.shown == Some(progress) || !terminal.is_terminal() {
            return;
        }
        self.shown = Some(progress);
        drop(write!(terminal, "\rscanning: {done} of {known} repositories").and_then(|()| terminal.flush()));
    }

    fn end(&mut self) {
        if self.shown.take().is_some() {
            tell("");
        }
    }
}

/// Says something to the person or script that runs the command.
fn tell(text: &str) {
    // Nobody is left to be told that standard error is gone.
    drop(writeln!(std::io::stderr(), "{text}"));
}

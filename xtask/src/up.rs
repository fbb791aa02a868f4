//! `cargo xtask up`: the whole system on this machine, until Ctrl-C.
//!
//! Everything is fresh each time and gone afterwards: database, registry and cache lie in temporary folders, and all
//! ports but the proxy's are chosen freely. As root, PostgreSQL and nginx run as users who may do less.

mod printer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use flagstate_test_support::images::SampleImages;
use flagstate_test_support::postgres::Server;
use flagstate_test_support::process::describe;
use flagstate_test_support::service::{INDEXER, QUERY_API};
use flagstate_test_support::system::{Options, System, found_in};
use flagstate_test_support::wait;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use crate::{cargo, packages};
use printer::Printer;

/// The query that shows that everything works together.
const SAMPLE_QUERY: &str = "architecture=amd64&os=linux&tag=latest";

/// What `up` can be told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A registry that runs already; without it, one with sample images is started.
    #[arg(long, value_name = "URL")]
    registry: Option<Url>,
    /// Where the proxy listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    listen: SocketAddr,
}

/// Runs until a signal comes or a part ends.
///
/// # Errors
/// When a part is missing, does not start, or ends by itself.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let outcome = tokio::select! {
        outcome = up(arguments) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    if outcome.is_ok() {
        println!("Everything is down.");
    }
    outcome
}

async fn up(arguments: Arguments) -> Result<()> {
    install(&arguments).await?;
    let taken = std::net::TcpListener::bind(arguments.listen).err();
    if let Some(error) = taken {
        bail!(
            "cannot listen on {}: {error}; --listen takes another address",
            arguments.listen
        );
    }
    println!("building {INDEXER} and {QUERY_API}");
    let build = cargo::command(&["build", "--quiet", "--package", INDEXER, "--package", QUERY_API]);
    cargo::run(build).await.context("the services cannot be built")?;

    println!("starting");
    let printer = Arc::new(Printer::new());
    let lines = printer.clone();
    let mut postgres = Server::start(Some(Arc::new(move |line| lines.print("postgres", line)))).await?;
    let lines = printer.clone();
    let options = Options {
        binaries: cargo::binaries()?,
        postgres: Some(postgres.url().clone()),
        registry: arguments.registry,
        proxy: Some(arguments.listen),
        on_line: Some(Arc::new(move |part, line| lines.print(part, line))),
        ..Options::default()
    };
    let mut system = System::start(&options).await?;
    if system.registry.is_some() {
        show_samples(&system).await?;
    }
    printer.print_block(&addresses(&system, &options));
    Err(first_end(&mut system, &mut postgres).await)
}

async fn install(arguments: &Arguments) -> Result<()> {
    let mut needed = vec![packages::POSTGRESQL, packages::NGINX];
    if arguments.registry.is_none() {
        needed.push(packages::REGISTRY);
    }
    let Err(error) = packages::ensure_installed(&needed).await else {
        return Ok(());
    };
    if packages::missing(&needed) == [packages::REGISTRY.name] {
        bail!(
            "{error:#}\nOr have a registry indexed that runs already, such as that of \
             `docker run -d -p 127.0.0.1:5000:5000 registry:2`:\n\n    \
             cargo xtask up --registry http://127.0.0.1:5000\n"
        );
    }
    Err(error)
}

/// Pushes the sample images and waits until the index answers them.
async fn show_samples(system: &System) -> Result<()> {
    let samples = SampleImages::all();
    system.pusher()?.push_samples(&samples).await?;
    let expected = samples.found("linux", "amd64", "latest");
    wait::until("the index answers the sample images", async || {
        let answer = system.index(SAMPLE_QUERY).await.map_err(|error| format!("{error:#}"))?;
        let found = found_in(&answer);
        if found == expected {
            Ok(())
        } else {
            Err(format!("{} of {}", found.len(), expected.len()))
        }
    })
    .await
}

fn addresses(system: &System, options: &Options) -> String {
    let proxy = system.proxy.url();
    let registry = match (&system.registry, &options.registry) {
        (Some(registry), _) => format!("{proxy}v2/ with the sample images; directly {}", registry.url()),
        (None, Some(url)) => format!("{url}, being scanned; also at {proxy}v2/"),
        (None, None) => String::new(),
    };
    format!(
        "
Flagstate is up.

  try it      curl '{proxy}index/static?{SAMPLE_QUERY}'
  registry    {registry}
  events      {proxy}events, bearer token {}
  metrics     http://{}/metrics (indexer), http://{}/metrics (query-api)
  database    {}

Ctrl-C takes all of it down and leaves nothing behind.
",
        system.token(),
        system.indexer.admin_address(),
        system.query_api.admin_address(),
        system.database.url(),
    )
}

/// Waits until any part ends by itself, and says which.
async fn first_end(system: &mut System, postgres: &mut Server) -> anyhow::Error {
    loop {
        for process in system.processes().chain([postgres.process()]) {
            if let Some(status) = process.ended() {
                return anyhow::anyhow!(
                    "{} ended by itself, {}; everything is taken down",
                    process.name(),
                    describe(status)
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

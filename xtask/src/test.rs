//! `cargo xtask test`: everything that CI checks, in one run and one target folder.

mod schema;
mod step;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum as _;
use flagstate_test_support::postgres::Server;

use crate::packages;
use step::Step;

/// What tests start.
const PACKAGES: [packages::Package; 7] = [
    packages::POSTGRESQL,
    packages::REGISTRY,
    packages::NGINX,
    packages::SKOPEO,
    packages::FLATPAK,
    packages::OSTREE,
    packages::DBUS,
];

/// What `test` can be told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Runs these steps only; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Step>,
}

/// Runs all steps, also after a failure, and prints what each took.
///
/// # Errors
/// When something is missing or a step fails.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    packages::ensure_installed(&PACKAGES).await?;
    let postgres = Server::start(None).await?;
    let all = Step::value_variants().iter().copied();
    let steps: Vec<_> = all
        .filter(|step| arguments.only.is_empty() || arguments.only.contains(step))
        .collect();
    let mut outcomes = Vec::new();
    for step in steps {
        println!("\n==> {}", step.title());
        let begin = Instant::now();
        let outcome = step.run(&postgres).await;
        if let Err(error) = &outcome {
            println!("{} failed: {error:#}", step.title());
        }
        outcomes.push(Outcome {
            step,
            took: begin.elapsed(),
            passed: outcome.is_ok(),
        });
    }
    print!("\n{}", table(&outcomes));
    if outcomes.iter().any(|outcome| !outcome.passed) {
        bail!("not everything passed");
    }
    Ok(())
}

struct Outcome {
    step: Step,
    took: Duration,
    passed: bool,
}

fn table(outcomes: &[Outcome]) -> String {
    let line = |Outcome { step, took, passed }: &Outcome| {
        let verdict = if *passed { "passed" } else { "FAILED" };
        format!("{verdict}  {:>7.1} s  {}\n", took.as_secs_f64(), step.title())
    };
    outcomes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_verdict_seconds_and_step() {
        let outcome = |step, seconds, passed| Outcome {
            step,
            took: Duration::from_secs(seconds),
            passed,
        };
        let text = table(&[outcome(Step::Format, 1, true), outcome(Step::Clippy, 61, false)]);
        assert_eq!(text, "passed      1.0 s  format\nFAILED     61.0 s  clippy\n");
    }
}

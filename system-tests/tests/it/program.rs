//! Programs that run to their end.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use flagstate_test_support::environment;
use flagstate_test_support::process::{Program, describe};

/// Only a program that hangs runs so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Output goes into a file: a daemon that a client leaves behind may keep a pipe open for minutes.
const INTO_FILE: &str = r#"file=$1; shift; exec "$@" >"$file" 2>&1"#;

/// Runs a program in a folder, with a home of its own there; returns what it printed.
///
/// Panics when it fails. What it started is killed when it ends.
pub(crate) async fn run<A: AsRef<OsStr>>(folder: &Path, name: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let path = environment::find_program(name).unwrap_or_else(|| panic!("{name} is not installed"));
    let home = folder.join("home");
    std::fs::create_dir_all(&home).unwrap();
    let output = tempfile::NamedTempFile::new_in(folder).unwrap();
    let mut program = Program::new(name, "/bin/sh")
        .args(["-c", INTO_FILE, "sh"])
        .arg(output.path())
        .arg(path)
        .args(arguments)
        .current_dir(folder);
    for (variable, value) in [
        ("HOME", "."),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_DATA_HOME", "data"),
        ("XDG_RUNTIME_DIR", "run"),
        ("FLATPAK_SYSTEM_DIR", "system"),
        // Without triggers nothing needs a sandbox, which root in a container cannot make.
        ("FLATPAK_TRIGGERSDIR", "triggers"),
    ] {
        let value = home.join(value);
        std::fs::create_dir_all(&value).unwrap();
        program = program.env(variable, value);
    }
    let mut process = program
        .env("LC_ALL", "C.UTF-8")
        .env("no_proxy", "127.0.0.1")
        .start()
        .unwrap();
    let ended = process.wait(PATIENCE).await;
    let printed = std::fs::read_to_string(output.path()).unwrap();
    match ended {
        Ok(status) => assert!(status.success(), "{name}: {}\n{printed}", describe(status)),
        Err(error) => panic!("{error}\n{printed}"),
    }
    printed
}

//! Child processes that end with us, however we end.
//!
//! A small `sh` stands between: it holds the read end of a pipe of ours. When the pipe closes, because we stop the
//! process, drop it, exit or are killed, the `sh` asks the program to stop and kills it if it does not. `sh` and program
//! have a process group of their own, so that Ctrl-C in a terminal reaches us alone.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, PipeReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, User};

/// `$1` is the signal that asks the program to stop, `$2` a folder to remove at the end or nothing, the rest the program.
/// The program gets ten seconds.
const SUPERVISOR: &str = r#"
stop=$1 folder=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- &
program=$!
{
    read -r line <&3
    kill -s "$stop" "$program"
    tries=0
    while kill -s 0 "$program" && [ "$tries" -lt 200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    kill -s KILL "$program"
} 2>/dev/null &
watcher=$!
wait "$program" 2>/dev/null
status=$?
kill -s KILL "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
if [ -n "$folder" ]; then rm -rf -- "$folder"; fi
exit "$status"
"#;

/// Longer than the supervisor needs to stop a program that does not want to.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lines of output that are kept for [`Process::log`].
const KEPT_LINES: usize = 5_000;

/// Gets each line of a program's output as it comes.
pub type OnLine = Arc<dyn Fn(&str) + Send + Sync>;

/// A program that may be started.
pub struct Program {
    name: String,
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
    user: Option<User>,
    stop_signal: &'static str,
    removed_at_end: Option<PathBuf>,
    on_line: Option<OnLine>,
}

impl Program {
    /// `name` stands in messages and logs.
    pub fn new(name: &str, path: impl AsRef<Path>) -> Self {
        Self {
            name: name.to_owned(),
            path: path.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: PathBuf::from("/"),
            user: None,
            stop_signal: "TERM",
            removed_at_end: None,
            on_line: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The folder to run in; `/` when not told.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.folder = folder.as_ref().to_owned();
        self
    }

    /// Runs as another user, which only root can ask for; `None` is ourselves.
    #[must_use]
    pub fn run_as(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// The signal that asks the program to stop, without `SIG`; `TERM` when not told.
    #[must_use]
    pub fn stop_with(mut self, signal: &'static str) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Removes the folder when the program has ended.
    #[must_use]
    pub fn remove_at_end(mut self, folder: impl AsRef<Path>) -> Self {
        self.removed_at_end = Some(folder.as_ref().to_owned());
        self
    }

    /// Who else gets each line of output.
    #[must_use]
    pub fn on_line(mut self, on_line: Option<OnLine>) -> Self {
        self.on_line = on_line;
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self) -> Result<Process> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "sh", self.stop_signal])
            .arg(self.removed_at_end.as_deref().unwrap_or(Path::new("")))
            .arg(&self.path)
            .args(&self.arguments)
            .envs(self.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {} ({})", self.name, self.path.display()))?;
        drop(command);
        let log = Log::default();
        let lines = log.clone();
        let on_line = self.on_line;
        std::thread::Builder::new()
            .name(format!("{}-log", self.name))
            .spawn(move || lines.fill_from(reader, on_line))?;
        Ok(Process {
            name: self.name,
            child,
            log,
            removed_at_end: self.removed_at_end,
            status: None,
        })
    }
}

/// A running program; dropping it stops the program and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
    removed_at_end: Option<PathBuf>,
    status: Option<ExitStatus>,
}

impl Process {
    /// The name that messages use.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the process group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of what the program printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// How the program ended; `None` while it runs. A program that a signal ended has the status 128 + signal.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() && self.is_waiting_to_be_reaped() {
            self.signal_group(Signal::SIGKILL);
            self.status = self.child.wait().ok();
            if let Some(folder) = &self.removed_at_end {
                std::fs::remove_dir_all(folder).ok();
            }
        }
        self.status
    }

    /// Waits for the program's own end.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "{} still runs after {patience:?}", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks the program to stop, kills it after ten seconds, and waits for its end.
    ///
    /// # Errors
    /// When it could not even be killed.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        drop(self.child.stdin.take());
        self.wait(PATIENCE).await
    }

    /// Kills the program at once (SIGKILL), and all it started in its group.
    ///
    /// # Errors
    /// When it could not be killed.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        if self.status.is_none() {
            self.signal_group(Signal::SIGKILL);
        }
        self.wait(PATIENCE).await
    }

    /// Freezes the program (SIGSTOP) until [`Process::resume`].
    pub fn pause(&self) {
        if self.status.is_none() {
            self.signal_group(Signal::SIGSTOP);
        }
    }

    /// Lets a paused program go on.
    pub fn resume(&self) {
        if self.status.is_none() {
            self.signal_group(Signal::SIGCONT);
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The group exists until the supervisor is reaped, so the number cannot mean anything else.
    fn signal_group(&self, signal: Signal) {
        killpg(self.pid(), signal).ok();
    }

    fn is_waiting_to_be_reaped(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.pid()), flags), Ok(WaitStatus::StillAlive))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if self.status.is_none() {
            self.signal_group(Signal::SIGCONT);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if std::thread::panicking() {
            eprintln!("---- {} printed:\n{}----", self.name, self.log());
        }
    }
}

/// One line about an end: `exit status 1` or `killed by signal 9`.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    let signal = status
        .signal()
        .or(status.code().and_then(|code| (code > 128).then_some(code - 128)));
    match signal {
        Some(signal) => format!("ended by signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or_default()),
    }
}

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn fill_from(&self, reader: PipeReader, on_line: Option<OnLine>) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if let Some(on_line) = &on_line {
                on_line(&text);
            }
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == KEPT_LINES {
                lines.pop_front();
            }
            lines.push_back(text);
        }
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Program::new("shell", "/bin/sh").args(["-c", script]).start().unwrap()
    }

    /// Whether nothing of the group runs; what only waits for init to reap it does not count.
    fn group_is_gone(group: u32) -> bool {
        let runs_in_group = |stat: String| {
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            fields[0] != "Z" && fields[2] == group.to_string()
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        !processes
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
            .any(runs_in_group)
    }

    fn assert_group_goes(group: u32) {
        let deadline = Instant::now() + PATIENCE;
        while !group_is_gone(group) {
            assert!(Instant::now() < deadline, "something of the group still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[tokio::test]
    async fn tells_how_a_program_ended_and_what_it_printed() {
        let mut process = shell("echo out; echo err >&2; exit 7");
        let status = process.wait(PATIENCE).await.unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(describe(status), "exit status 7");
        while process.log().lines().count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(process.log(), "out\nerr\n");
    }

    #[tokio::test]
    async fn stop_sends_the_signal_and_leaves_nothing_of_the_group() {
        let mut process = shell("trap 'exit 3' TERM; sleep 100 & while :; do sleep 0.05; done");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(process.stop().await.unwrap().code(), Some(3));
        assert_group_goes(process.group());
    }

    #[tokio::test]
    async fn kill_ends_a_program_that_ignores_signals() {
        let mut process = shell("trap '' TERM INT HUP; while :; do sleep 0.05; done");
        process.kill().await.unwrap();
        assert_group_goes(process.group());
    }

    #[test]
    fn dropping_stops_the_program_even_a_paused_one() {
        let process = shell("sleep 100");
        process.pause();
        let group = process.group();
        drop(process);
        assert_group_goes(group);
    }

    #[test]
    fn removes_the_folder_when_the_program_ends() {
        let folder = tempfile::tempdir().unwrap().keep();
        drop(
            Program::new("sleep", "/bin/sleep")
                .arg("100")
                .remove_at_end(&folder)
                .start()
                .unwrap(),
        );
        assert!(!folder.exists());
    }
}

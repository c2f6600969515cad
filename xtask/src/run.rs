//! The folders of the workspace, and starting other programs: always with a timeout, and with an
//! error that names the command.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The interval at which a wait for the end of a program polls.
const TICK: Duration = Duration::from_millis(10);

/// How long a reader continues after the program has ended. A background process of a test may keep
/// the pipe open; xtask must not wait for it.
const READER_GRACE: Duration = Duration::from_secs(1);

pub const MINUTE: Duration = Duration::from_secs(60);

pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
    cargo: OsString,
}

impl Workspace {
    pub fn find() -> Result<Self, String> {
        // `cargo run` sets the variable. The compiled-in value is used if a user starts the program.
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .ok_or("xtask's folder has no parent: run it as `cargo xtask`")?
            .to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
            || Ok(root.join("target")),
            |dir| std::path::absolute(dir).map_err(|e| format!("CARGO_TARGET_DIR: {e}")),
        )?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self { root, target, cargo })
    }

    /// Tools and packages that xtask downloaded for this workspace. The folder can be deleted.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The version of the library.
    pub fn version(&self) -> Result<String, String> {
        let manifest = read_file(&self.root.join("Cargo.toml"))?;
        // The first version in the file is the package's.
        let version =
            manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.split('"').next());
        version.map(str::to_owned).ok_or_else(|| "Cargo.toml has no version".to_owned())
    }

    /// A command that runs in the root of the workspace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.cargo);
        command.args(arguments);
        command
    }
}

/// Whether a skipped step is a failure.
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

pub fn create_dir(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|e| format!("create {}: {e}", path.display()))
}

/// Copies a folder with all it contains.
pub fn copy_all(from: &Path, to: &Path) -> Result<(), String> {
    create_dir(to)?;
    let entries = fs::read_dir(from).map_err(|e| format!("read {}: {e}", from.display()))?;
    for entry in entries.flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy_all(&from, &to)? } else { copy_one(&from, &to)? }
    }
    Ok(())
}

/// Copies a file, unless the copy is the same: cargo compiles again what has changed only.
pub fn copy_one(from: &Path, to: &Path) -> Result<(), String> {
    let text = fs::read(from).map_err(|e| format!("read {}: {e}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let copied = fs::copy(from, to).map(|_| ());
    copied.map_err(|e| format!("copy {} to {}: {e}", from.display(), to.display()))
}

pub fn read_file(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}

pub fn write_file(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
}

/// Runs a command, prints its output immediately, and returns the output.
pub fn show(command: &mut Command, limit: Duration) -> Result<String, String> {
    println!("$ {}", line_of(command));
    let ended = run(command, limit, true)?;
    check(command, ended.status).map(|()| ended.stdout + &ended.stderr)
}

/// Runs a command silently and returns its standard output. The error contains the end of the
/// command's output.
pub fn capture(command: &mut Command, limit: Duration) -> Result<String, String> {
    let ended = run(command, limit, false)?;
    check(command, ended.status).map_err(|message| {
        let said = format!("{}{}", ended.stdout, ended.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n    ");
        format!("{message}\n    {tail}")
    })?;
    Ok(ended.stdout)
}

/// Runs a command silently. Returns whether it succeeded, and its output.
pub fn collect(command: &mut Command, limit: Duration) -> Result<(bool, String), String> {
    let ended = run(command, limit, false)?;
    Ok((ended.status.success(), ended.stdout + &ended.stderr))
}

/// Runs a command silently. Returns whether it ended within the limit, and its output until then.
pub fn attempt(command: &mut Command, limit: Duration) -> Result<(bool, String), String> {
    let ended = run_until(command, limit, false)?;
    Ok((ended.status.is_some(), ended.stdout + &ended.stderr))
}

/// Runs a command and prints its output immediately. Returns whether it succeeded.
pub fn watch(command: &mut Command, limit: Duration) -> Result<bool, String> {
    println!("$ {}", line_of(command));
    run(command, limit, true).map(|ended| ended.status.success())
}

/// Whether a command can be started and succeeds.
pub fn succeeds(command: &mut Command, limit: Duration) -> bool {
    run(command, limit, false).is_ok_and(|ended| ended.status.success())
}

struct Ended<S> {
    status: S,
    stdout: String,
    stderr: String,
}

fn run(command: &mut Command, limit: Duration, echo: bool) -> Result<Ended<ExitStatus>, String> {
    let Ended { status, stdout, stderr } = run_until(command, limit, echo)?;
    match status {
        Some(status) => Ok(Ended { status, stdout, stderr }),
        None => Err(format!(
            "`{}` did not end within {} s and was killed",
            line_of(command),
            limit.as_secs()
        )),
    }
}

/// The status of a command that was killed at the limit is `None`.
fn run_until(
    command: &mut Command,
    limit: Duration,
    echo: bool,
) -> Result<Ended<Option<ExitStatus>>, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|e| format!("cannot start `{}`: {e}", line_of(command)))?;
    let stdout = child.stdout.take().map(|pipe| Reader::start(pipe, echo));
    let stderr = child.stderr.take().map(|pipe| Reader::start(pipe, echo));
    let status = wait(&mut child, limit)?;
    if status.is_none() {
        kill_tree(&mut child);
    }
    let text = |reader: Option<Reader>| reader.map_or_else(String::new, Reader::finish);
    Ok(Ended { status, stdout: text(stdout), stderr: text(stderr) })
}

fn check(command: &Command, status: ExitStatus) -> Result<(), String> {
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` ended with {status}", line_of(command)))
    }
}

/// Waits for a child process for a limited time. Returns `None` if the child is still running.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, String> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| format!("wait for a child: {e}"))? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(TICK);
    }
}

/// Calls `look` repeatedly, for a limited time, until it returns a value.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        // Short, because callers measure the time until the event.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Kills a child process and its descendants.
pub fn kill_tree(child: &mut Child) {
    // The descendants are listed first: the children of a process that has ended have another parent.
    for pid in descendants(child.id()) {
        // The shell's built-in: not every machine has `kill` as a program.
        let line = format!("kill -9 {pid}");
        let _ = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status();
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may contain spaces, so fields are counted from its end.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Collects the output of a program line by line, and prints it if requested.
pub struct Reader {
    text: Arc<Mutex<String>>,
    done: mpsc::Receiver<()>,
}

impl Reader {
    pub fn start(pipe: impl Read + Send + 'static, echo: bool) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let (ended, done) = mpsc::channel();
        let shared = Arc::clone(&text);
        thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if echo {
                    let _ = std::io::stdout().lock().write_all(&line);
                }
                if let Ok(mut text) = shared.lock() {
                    text.push_str(&String::from_utf8_lossy(&line));
                }
                line.clear();
            }
            let _ = ended.send(());
        });
        Self { text, done }
    }

    /// The output up to now.
    pub fn text(&self) -> String {
        self.text.lock().map_or_else(|_| String::new(), |text| text.clone())
    }

    /// The output at the end of the program.
    pub fn finish(self) -> String {
        let _ = self.done.recv_timeout(READER_GRACE);
        self.text()
    }
}

/// A command as a user would type it, without the folder of the program.
pub fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_beyond_its_timeout_is_killed_with_its_children() {
        let note = env::temp_dir().join(format!("xtask-overrun-{}", std::process::id()));
        let script = format!("sleep 100 & echo $! > '{}'; wait", note.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let error = capture(&mut command, Duration::from_secs(3)).unwrap_err();
        let sleeper = read_file(&note).unwrap();
        let _ = fs::remove_file(&note);
        assert!(error.contains("was killed"), "{error}");
        let stat = Path::new("/proc").join(sleeper.trim()).join("stat");
        // It has ended, or is a zombie that init has not yet collected.
        let gone = || fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z ")).then_some(());
        assert!(wait_for(Duration::from_secs(30), gone).is_some(), "the sleeper still runs");
    }

    #[test]
    fn capture_error_contains_the_command_and_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo reason >&2; exit 3"]);
        let error = capture(&mut command, MINUTE).unwrap_err();
        assert!(
            error.contains("sh -c") && error.contains("reason") && error.contains('3'),
            "{error}"
        );
    }

    #[test]
    fn reader_does_not_wait_for_a_background_process() {
        let started = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 40 & echo done"]);
        assert_eq!(capture(&mut command, MINUTE).unwrap(), "done\n");
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}

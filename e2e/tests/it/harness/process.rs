//! A process of the system under test: started in a group of its own, listened to, and killed with the test.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// How often a condition is looked at again.
const PAUSE: Duration = Duration::from_millis(5);

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("COPASS_BIN") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "COPASS_BIN names {}, which does not exist",
            path.display()
        );
        return path;
    }
    // target/<profile>/deps/it-… stands beside target/<profile>/copass.
    let test = std::env::current_exe().expect("the path of this test");
    let path = test.ancestors().nth(2).expect("target/<profile>/deps").join("copass");
    assert!(
        path.is_file(),
        "{} does not exist: run `cargo build -p copass-cli` first, or set COPASS_BIN",
        path.display()
    );
    path
}

/// The command `copass` with these arguments, and nothing of this machine's settings.
pub(crate) fn copass(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    clean_environment(&mut command);
    command
}

/// Only what a program needs to run; a back trace would be printed if there were one.
fn clean_environment(command: &mut Command) {
    command
        .env_clear()
        .env("RUST_BACKTRACE", "1")
        .env("HOME", "/nonexistent");
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Lines of one output stream, collected by a thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                lines.lock().push(String::from_utf8_lossy(&line).into_owned());
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: Vec<String>,
}

/// A running process.
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: Lines,
    stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it in a process group of its own.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let (stdout, stderr) = (Lines::default(), Lines::default());
        let readers = vec![
            stdout.follow(child.stdout.take().expect("a pipe")),
            stderr.follow(child.stderr.take().expect("a pipe")),
        ];
        Self {
            name: name.to_owned(),
            child,
            status: None,
            stdout,
            stderr,
            readers,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Sends a signal to the process itself, as an operator or Kubernetes does.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("{} does not take {signal}: {error}", self.name));
    }

    /// Whether it ended, without waiting.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the state of a child");
        }
        self.status.is_some()
    }

    /// SIGKILL, and it is gone when this returns.
    pub(crate) fn kill_9(&mut self) {
        if self.status.is_none() {
            // The group may be gone already.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.status = self.child.wait().ok();
        }
    }

    /// Waits for the end, and makes sure that nothing of its group is left.
    pub(crate) async fn wait(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "{} did not end within {limit:?}", self.name);
            tokio::time::sleep(PAUSE).await;
        }
        assert!(killpg(self.pid(), None).is_err(), "{} left a process behind", self.name);
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader of output");
        }
        let status = self.status.expect("it ended");
        Ended {
            status,
            stdout: self.stdout.lock().clone(),
            stderr: self.stderr.lock().clone(),
        }
    }

    /// The first thing that `pick` finds in a line of stdout.
    pub(crate) async fn find_in_stdout<T>(&mut self, limit: Duration, pick: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.has_ended();
            if let Some(found) = self.stdout.lock().iter().find_map(|line| pick(line)) {
                return found;
            }
            assert!(!ended, "{} ended before it said what was waited for", self.name);
            assert!(
                Instant::now() < deadline,
                "{} did not say what was waited for within {limit:?}",
                self.name
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.lock().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_9();
        if std::thread::panicking() {
            let mut text = format!("--- stderr of {} ({:?})\n", self.name, self.status);
            for line in self.stderr.lock().iter() {
                let _ = writeln!(text, "{line}");
            }
            eprint!("{text}");
        }
    }
}

/// Runs a command to its end, which must come by itself.
pub(crate) async fn run(name: &str, command: Command, limit: Duration) -> Ended {
    Process::start(name, command).wait(limit).await
}

impl Ended {
    /// The exit code; a process that a signal ended has none.
    #[track_caller]
    pub(crate) fn code(&self) -> i32 {
        let because = self.status.signal();
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by signal {because:?}: {}", self.stderr.join("\n")))
    }
}

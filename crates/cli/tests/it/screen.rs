//! A terminal with somebody in front of it: what is typed is typed after what was asked, and what is shown is what a
//! screen shows.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::{
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

/// Longer than anything takes, and short enough to learn of a mistake.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Screen {
    keyboard: File,
    pub(crate) child: Child,
    /// Everything that was written, as it came.
    written: watch::Receiver<Arc<Vec<u8>>>,
    reader: JoinHandle<()>,
    size: (u16, u16),
    /// How much of it was waited for.
    seen: usize,
}

impl Screen {
    /// Runs the command with stdin and stderr, and stdout too unless it is a pipe, on a terminal of this size.
    pub(crate) fn start(mut command: Command, rows: u16, columns: u16, is_stdout_piped: bool) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        let master = File::from(pty.master);
        let stdout = if is_stdout_piped {
            Stdio::piped()
        } else {
            Stdio::from(pty.slave.try_clone().unwrap())
        };
        command
            .env("TERM", "xterm")
            .stdin(Stdio::from(pty.slave.try_clone().unwrap()))
            .stdout(stdout)
            .stderr(Stdio::from(pty.slave));
        let child = command.spawn().unwrap();
        // It holds the other end of the terminal, which must close with the child.
        drop(command);
        let (writer, written) = watch::channel(Arc::new(Vec::new()));
        let mut output = master.try_clone().unwrap();
        let reader = tokio::task::spawn_blocking(move || {
            let mut buffer = [0u8; 4096];
            // Linux reports the closed terminal as an error.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                writer.send_modify(|text| Arc::make_mut(text).extend_from_slice(&buffer[..length]));
            }
        });
        Self {
            keyboard: master,
            child,
            written,
            reader,
            size: (rows, columns),
            seen: 0,
        }
    }

    /// Waits until this is written, after what was waited for before.
    pub(crate) async fn expect(&mut self, text: &str) {
        let seen = self.seen;
        let place = |written: &[u8]| {
            let after = String::from_utf8_lossy(&written[seen..]).into_owned();
            after.find(text).map(|at| seen + at + text.len())
        };
        let found = tokio::time::timeout(PATIENCE, self.written.wait_for(|written| place(written).is_some()))
            .await
            .ok()
            .and_then(|waited| waited.ok().map(|written| written.clone()));
        assert!(
            found.is_some(),
            "{text:?} was never written; the screen shows\n{}",
            self.shown()
        );
        self.seen = found.and_then(|written| place(&written)).unwrap();
    }

    /// Waits until the screen shows this.
    pub(crate) async fn shows(&mut self, check: impl Fn(&str) -> bool) -> String {
        let size = self.size;
        let shown = |written: &[u8]| contents(written, size);
        let found = tokio::time::timeout(PATIENCE, self.written.wait_for(|written| check(&shown(written))))
            .await
            .ok()
            .and_then(|waited| waited.ok().map(|written| written.clone()));
        assert!(found.is_some(), "the screen never shows it; it shows\n{}", self.shown());
        shown(&found.unwrap())
    }

    pub(crate) fn shown(&self) -> String {
        contents(&self.written.borrow(), self.size)
    }

    pub(crate) fn type_text(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Types keys that mean something else, or nothing, while the program does not read single keys: arrows, deletion,
    /// Ctrl-C. Waits until it does; until it has got the first one, it goes on to.
    pub(crate) async fn press(&mut self, keys: &str) {
        let reads_keys = async {
            // The two ends of a terminal have one state, and nothing tells of its changes.
            while tcgetattr(&self.keyboard)
                .unwrap()
                .local_flags
                .contains(LocalFlags::ICANON)
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, reads_keys).await;
        assert!(waited.is_ok(), "no key is read; the screen shows\n{}", self.shown());
        self.type_text(keys);
    }

    /// Ctrl-C for who does not read the keyboard: the terminal is not the one that controls the process, so it makes no
    /// signal of the key.
    pub(crate) fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    /// Everything that was written, as it came, and the exit code.
    pub(crate) async fn end(self) -> (String, Option<i32>, String) {
        let Self {
            child,
            written,
            reader,
            keyboard,
            ..
        } = self;
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        reader.await.unwrap();
        drop(keyboard);
        let text = String::from_utf8_lossy(&written.borrow()).replace("\r\n", "\n");
        (text, output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

/// What a screen shows after this was written to it.
fn contents(written: &[u8], (rows, columns): (u16, u16)) -> String {
    let mut parser = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0);
    parser.process(written);
    let lines: Vec<String> = parser
        .screen()
        .rows(0, columns)
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n").trim_end().to_owned()
}

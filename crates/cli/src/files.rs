//! The three JSON files of `cli.md` 3. Unknown keys are kept, writes are atomic, secrets are readable by the owner only.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::failure::Failure;

/// The directory of our files, in the home directory and in projects.
pub(crate) const DIRECTORY: &str = ".olane";
/// The ids a project works with.
pub(crate) const REFS: &str = "refs.json";
/// Global: credentials. In a project: settings.
pub(crate) const CONFIG: &str = "config.json";

/// A JSON object in a file.
#[derive(Debug, Clone)]
pub(crate) struct JsonFile {
    path: PathBuf,
    private: bool,
    fields: Map<String, Value>,
}

impl JsonFile {
    /// Reads the file; a missing one is empty.
    pub(crate) fn read(path: PathBuf) -> Result<Self, Failure> {
        let fields = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|reason| {
                Failure::failed(format!("{} is not understood: {reason}", path.display()))
                    .hint("mend the file, or remove it and run the command again")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
        };
        Ok(Self {
            path,
            private: false,
            fields,
        })
    }

    /// The same for a file with secrets: it is written with mode 0600.
    pub(crate) fn read_private(path: PathBuf) -> Result<Self, Failure> {
        Ok(Self {
            private: true,
            ..Self::read(path)?
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A text that is there and not empty.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.fields
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i64> {
        self.fields.get(key).and_then(Value::as_i64)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key)
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.insert(key.to_owned(), value.into());
    }

    pub(crate) fn remove(&mut self, key: &str) -> bool {
        self.fields.remove(key).is_some()
    }

    /// Writes the whole file at once: a reader sees the old or the new one, never a part.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        let mut text =
            serde_json::to_string_pretty(&self.fields).map_err(|error| Failure::failed(error.to_string()))?;
        text.push('\n');
        write_atomic(&self.path, text.as_bytes(), self.private)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", self.path.display())))
    }
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        // serde_json's own text may quote the content, which may be a secret.
        Err(error) => Err(format!(
            "no valid JSON at line {}, column {}",
            error.line(),
            error.column()
        )),
    }
}

/// Looks for `.olane/<name>` in the directory and its parents.
pub(crate) fn find_upwards(start: &Path, name: &str, except: Option<&Path>) -> Option<PathBuf> {
    start
        .ancestors()
        .map(|directory| directory.join(DIRECTORY).join(name))
        .find(|path| path.is_file() && except != Some(path.as_path()))
}

/// Creates the directory of a file; a private one is closed to others.
pub(crate) fn create_parent(path: &Path, private: bool) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    if private {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(parent)
}

fn write_atomic(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    // A link (dotfiles in a repository) is followed, not replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    create_parent(path, private)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = write_new(&temporary, bytes, private).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // The write's error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_new(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

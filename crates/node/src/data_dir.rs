//! The data directory of `copass dev`: one instance at a time, readable by its owner only.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use copass_runtime::MasterKey;
use etcetera::BaseStrategy as _;
use fd_lock::RwLock;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// What `dev` made on its first start, kept so that it can print it again.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) email: String,
    pub(crate) sandbox_id: String,
    pub(crate) api_key: String,
}

pub(crate) struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Opens the directory, making it if needed.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self, Failure> {
        let path = match path {
            Some(path) => path,
            None => etcetera::choose_base_strategy()
                .map_err(|_| {
                    Failure::new(
                        "there is no home directory for the data",
                        "name a directory with --data-dir",
                    )
                })?
                .data_dir()
                .join("copass"),
        };
        let is_new = !path.exists();
        std::fs::create_dir_all(&path).map_err(|error| unusable(&path, &error))?;
        // Only what is ours to close: a directory that somebody named may be shared, and its rights are theirs.
        if is_new {
            restrict(&path, 0o700).map_err(|error| unusable(&path, &error))?;
        }
        let directory = Self { path };
        // Permission to write is found out now, with a clear message, and not by the database. The name is this process's
        // own: another one may do the same at this moment, before the lock tells them apart.
        let probe = format!("write-test-{}", std::process::id());
        directory.write_private(&probe, b"")?;
        let _ = std::fs::remove_file(directory.path.join(probe));
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn database_url(&self) -> String {
        format!("sqlite:{}", self.path.join("copass.db").display())
    }

    /// The file whose lock says that an instance runs.
    pub(crate) fn lock_file(&self) -> Result<RwLock<File>, Failure> {
        let path = self.path.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| unusable(&path, &error))?;
        Ok(RwLock::new(file))
    }

    pub(crate) fn already_running(&self) -> Failure {
        let mut pid = String::new();
        let known = File::open(self.path.join("lock"))
            .and_then(|mut file| file.read_to_string(&mut pid))
            .is_ok();
        let who = if known && !pid.trim().is_empty() {
            format!("process {}", pid.trim())
        } else {
            "another process".to_owned()
        };
        Failure::new(
            format!("the data directory {} is in use by {who}", self.path.display()),
            "stop that `copass dev`, or start this one with another --data-dir and --listen",
        )
    }

    /// The master key of this directory, made on the first start.
    pub(crate) fn master_key(&self) -> Result<String, Failure> {
        let path = self.path.join("master.key");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = MasterKey::generate_text();
                self.write_private("master.key", key.as_bytes())?;
                Ok(key)
            }
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    pub(crate) fn read_owner(&self) -> Option<Owner> {
        let text = std::fs::read_to_string(self.path.join("owner.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) fn write_owner(&self, owner: &Owner) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(owner).map_err(|error| Failure {
            message: format!("cannot write owner.json: {error}"),
            hint: None,
        })?;
        self.write_private("owner.json", &text)
    }

    /// Writes a file whole or not at all, readable by its owner only.
    fn write_private(&self, name: &str, content: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.new"));
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().map_err(|error| unusable(&path, &error))
    }
}

fn restrict(path: &Path, mode: u32) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("cannot use {}: {error}", path.display()),
        "check its permissions and the free space, or name another directory with --data-dir",
    )
}

//! Flags, environment and files, resolved once into what the commands ask for (`cli.md` 1, 3).

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use crate::{
    args::GlobalArgs,
    failure::Failure,
    files::{self, JsonFile},
};

/// Where `copass dev` listens when nobody says otherwise.
pub(crate) const DEFAULT_API_URL: &str = "http://127.0.0.1:8484";

/// The answer to: which server, which sandbox, which files, is somebody there.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The server.
    pub(crate) api_url: String,
    /// Whether only the project's own file chose the server.
    pub(crate) api_url_from_project: bool,
    /// `COPASS_API_KEY`.
    pub(crate) env_api_key: Option<String>,
    /// `--sandbox` or `COPASS_SANDBOX_ID`.
    chosen_sandbox: Option<String>,
    /// `--project`, and nothing else.
    pub(crate) project_flag: Option<String>,
    chosen_project: Option<String>,
    cwd: PathBuf,
    global_config: Option<PathBuf>,
    /// Whether a person can be asked.
    pub(crate) interactive: bool,
}

impl Settings {
    /// Resolves everything that needs no network.
    pub(crate) fn resolve(args: &GlobalArgs) -> Result<Self, Failure> {
        let cwd = std::env::current_dir()
            .map_err(|error| Failure::failed(format!("the working directory is gone: {error}")))?;
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let global_config = home.map(|home| home.join(files::DIRECTORY).join(files::CONFIG));
        let given = filled(args.api_url.clone()).or_else(|| env("COPASS_API_URL"));
        let mut api_url_from_project = false;
        let api_url = match given {
            Some(url) => url,
            None => match project_api_url(&cwd, global_config.as_ref())? {
                Some(url) => {
                    api_url_from_project = true;
                    url
                }
                None => global_api_url(global_config.as_ref()).unwrap_or_else(|| DEFAULT_API_URL.to_owned()),
            },
        };
        Ok(Self {
            api_url: api_url.trim().trim_end_matches('/').to_owned(),
            api_url_from_project,
            env_api_key: env("COPASS_API_KEY"),
            chosen_sandbox: filled(args.sandbox.clone()).or_else(|| env("COPASS_SANDBOX_ID")),
            project_flag: filled(args.project.clone()),
            chosen_project: filled(args.project.clone()).or_else(|| env("COPASS_PROJECT_ID")),
            cwd,
            global_config,
            interactive: io::stdin().is_terminal() && io::stderr().is_terminal(),
        })
    }

    /// Whether there is a place for credentials at all.
    pub(crate) fn has_home(&self) -> bool {
        self.global_config.is_some()
    }

    /// `~/.olane/config.json`.
    pub(crate) fn global_config(&self) -> Result<JsonFile, Failure> {
        let path = self.global_config.clone().ok_or_else(|| {
            Failure::failed("there is no home directory to keep credentials in").hint("set HOME, or use COPASS_API_KEY")
        })?;
        JsonFile::read_private(path)
    }

    /// The nearest `.olane/refs.json`, in the working directory or above; empty when there is none.
    pub(crate) fn refs(&self) -> Result<Option<JsonFile>, Failure> {
        files::find_upwards(&self.cwd, files::REFS, None)
            .map(JsonFile::read)
            .transpose()
    }

    /// The `.olane/refs.json` of the working directory itself.
    pub(crate) fn refs_here(&self) -> Result<JsonFile, Failure> {
        JsonFile::read(self.cwd.join(files::DIRECTORY).join(files::REFS))
    }

    /// The sandbox that was named by flag or environment.
    pub(crate) fn chosen_sandbox(&self) -> Option<&str> {
        self.chosen_sandbox.as_deref()
    }

    /// The project that was named by flag or environment.
    pub(crate) fn chosen_project(&self) -> Option<&str> {
        self.chosen_project.as_deref()
    }

    /// The sandbox to work in, if there is one.
    pub(crate) fn sandbox(&self) -> Result<Option<String>, Failure> {
        match &self.chosen_sandbox {
            Some(id) => Ok(Some(id.clone())),
            None => Ok(self.refs()?.and_then(|refs| refs.text("sandbox_id").map(str::to_owned))),
        }
    }

    /// The sandbox to work in.
    pub(crate) fn required_sandbox(&self) -> Result<String, Failure> {
        self.sandbox()?.ok_or_else(|| {
            Failure::usage("no sandbox is chosen")
                .hint("run `copass setup` here, pass --sandbox, or set COPASS_SANDBOX_ID")
        })
    }

    /// The project to work in, if there is one.
    pub(crate) fn project(&self) -> Result<Option<String>, Failure> {
        match &self.chosen_project {
            Some(id) => Ok(Some(id.clone())),
            None => Ok(self.refs()?.and_then(|refs| refs.text("project_id").map(str::to_owned))),
        }
    }
}

fn env(name: &str) -> Option<String> {
    filled(std::env::var(name).ok())
}

fn filled(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn project_api_url(cwd: &std::path::Path, global: Option<&PathBuf>) -> Result<Option<String>, Failure> {
    // Below the home directory the walk meets the user's own file, which is not a project's.
    let Some(path) = files::find_upwards(cwd, files::CONFIG, global.map(PathBuf::as_path)) else {
        return Ok(None);
    };
    let file = JsonFile::read(path)?;
    let url = file
        .get("defaults")
        .and_then(|defaults| defaults.get("api_url"))
        .and_then(serde_json::Value::as_str);
    Ok(filled(url.map(str::to_owned)))
}

/// A broken file is reported by the command that needs it, not by those that do not.
fn global_api_url(global: Option<&PathBuf>) -> Option<String> {
    let file = JsonFile::read_private(global?.clone()).ok()?;
    file.text("api_url").map(str::to_owned)
}

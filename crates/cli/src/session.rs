//! The credential of a command, and the login session it may come from.
//!
//! Order: `COPASS_API_KEY`, the login session, the stored API key. A session is refreshed before it ends; because the
//! server rotates the refresh token, two commands that refresh at once would log each other out, so the refresh is
//! done under a file lock and the file is read again inside it.
//!
//! Stored credentials go to the server they were made for. A project's file may name another server (`cli.md` 1), but
//! a cloned repository must not be able to collect credentials that way: then the command refuses.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use copass_client::{Client, Credential};
use copass_types::api::Session;

use crate::{
    failure::Failure,
    files::{self, JsonFile},
    settings::Settings,
};

/// A token that ends sooner than this is refreshed.
const REFRESH_BEFORE_S: i64 = 60;
const SESSION_KEYS: [&str; 5] = ["access_token", "refresh_token", "expires_at", "user_id", "email"];

/// Where the credential comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Environment,
    Session,
    StoredKey,
}

impl Origin {
    /// In words, for `status` and `whoami`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "API key from COPASS_API_KEY",
            Self::Session => "login session",
            Self::StoredKey => "stored API key",
        }
    }
}

/// The credential to use, refreshed when needed; `None` when there is none.
pub(crate) async fn credential(settings: &Settings) -> Result<Option<(Credential, Origin)>, Failure> {
    if let Some(key) = &settings.env_api_key {
        guard_environment(settings)?;
        return Ok(Some((Credential::new(key.clone()), Origin::Environment)));
    }
    if !settings.has_home() {
        return Ok(None);
    }
    let config = settings.global_config()?;
    let stored_key = config.text("api_key").map(Credential::new);
    let session = config.text("access_token").is_some();
    if !session && stored_key.is_none() {
        return Ok(None);
    }
    guard_server(settings, &config)?;
    if session {
        match access_token(settings, &config).await {
            Ok(token) => return Ok(Some((token, Origin::Session))),
            // The session is over, but the machine has a key of its own.
            Err(failure) if failure.status == 401 && stored_key.is_some() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(stored_key.map(|key| (key, Origin::StoredKey)))
}

fn guard_server(settings: &Settings, config: &JsonFile) -> Result<(), Failure> {
    let Some(home) = config.text("api_url") else {
        return Ok(());
    };
    if settings.api_url_from_project && !same_server(home, &settings.api_url) {
        return Err(Failure::usage(format!(
            "this project names the server {}, but the stored credentials belong to {home}",
            settings.api_url
        ))
        .hint("if you trust the project, run `copass login` here; else set COPASS_API_URL to your server"));
    }
    Ok(())
}

/// A key in the environment belongs to no server that we know of, so a project's file may not choose one for it, unless
/// it is the one that this machine logged in to.
fn guard_environment(settings: &Settings) -> Result<(), Failure> {
    if !settings.api_url_from_project {
        return Ok(());
    }
    let home = if settings.has_home() {
        settings.global_config()?.text("api_url").map(str::to_owned)
    } else {
        None
    };
    if home.is_some_and(|home| same_server(&home, &settings.api_url)) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "this project names the server {}, and COPASS_API_KEY is not sent to a server that only a project names",
        settings.api_url
    ))
    .hint("if you trust the project, set COPASS_API_URL to that server"))
}

/// Whether two addresses are the same one.
pub(crate) fn same_server(one: &str, other: &str) -> bool {
    one.trim()
        .trim_end_matches('/')
        .eq_ignore_ascii_case(other.trim().trim_end_matches('/'))
}

async fn access_token(settings: &Settings, config: &JsonFile) -> Result<Credential, Failure> {
    if let Some(token) = fresh_token(config) {
        return Ok(token);
    }
    let lock = lock(config)?;
    let mut config = settings.global_config()?;
    // Another command may have refreshed while this one waited.
    if let Some(token) = fresh_token(&config) {
        return Ok(token);
    }
    let over = || Failure::not_logged_in("your login has ended");
    let refresh_token = config.text("refresh_token").ok_or_else(over)?.to_owned();
    let session = match Client::new(&settings.api_url, None)?
        .refresh_session(&refresh_token)
        .await
    {
        Ok(reply) => reply.value,
        Err(error)
            if error
                .status()
                .is_some_and(|status| (400..500).contains(&status) && status != 429) =>
        {
            return Err(over());
        }
        Err(error) => return Err(error.into()),
    };
    let token = Credential::new(session.access_token.clone());
    store(&mut config, &session)?;
    drop(lock);
    Ok(token)
}

fn fresh_token(config: &JsonFile) -> Option<Credential> {
    let token = config.text("access_token")?;
    let fresh = config
        .integer("expires_at")
        .is_none_or(|at| at - now_s() >= REFRESH_BEFORE_S);
    fresh.then(|| Credential::new(token))
}

/// Waits until no other command refreshes; released when dropped.
fn lock(config: &JsonFile) -> Result<fs::File, Failure> {
    let path = config.path().with_extension("lock");
    files::create_parent(&path, true)
        .and_then(|()| {
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        })
        .and_then(|file| file.lock().map(|()| file))
        .map_err(|error| Failure::failed(format!("cannot lock {}: {error}", path.display())))
}

/// Writes the session's values into the file.
pub(crate) fn store(config: &mut JsonFile, session: &Session) -> Result<(), Failure> {
    let lifetime = i64::try_from(session.expires_in).unwrap_or(i64::MAX);
    config.set("access_token", session.access_token.as_str());
    config.set("refresh_token", session.refresh_token.as_str());
    config.set(
        "expires_at",
        session.expires_at.unwrap_or_else(|| now_s().saturating_add(lifetime)),
    );
    config.set("user_id", session.user.id.as_str());
    if let Some(email) = &session.user.email {
        config.set("email", email.as_str());
    }
    config.write()
}

/// Removes the session's values from the fields; the file is not written yet.
pub(crate) fn forget(config: &mut JsonFile) -> bool {
    let removed = SESSION_KEYS.iter().filter(|key| config.remove(key)).count();
    removed > 0
}

/// Seconds since 1970. A wall clock is right here: the server's `expires_at` is one too.
fn now_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

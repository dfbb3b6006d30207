//! `copass config check|show`, and reading the configuration with all its problems.

use std::path::{Path, PathBuf};

use copass_runtime::Config;

use crate::Failure;

/// Reads the configuration and checks it whole.
///
/// # Errors
/// One failure that lists every problem.
pub fn load(file: Option<&Path>) -> Result<Config, Failure> {
    let config = Config::load(file)?;
    let problems = config.problems();
    if problems.is_empty() {
        return Ok(config);
    }
    Err(Failure::new(
        format!(
            "the configuration has {} problem(s):\n  {}",
            problems.len(),
            problems.join("\n  ")
        ),
        "correct these settings in the file or in COPASS__SECTION__KEY variables",
    ))
}

/// Checks the configuration and says so.
///
/// # Errors
/// One failure that lists every problem.
pub fn check(file: Option<PathBuf>) -> Result<String, Failure> {
    load(file.as_deref())?;
    Ok("the configuration is good".to_owned())
}

/// The configuration that is in effect, as TOML, without secrets.
///
/// # Errors
/// The configuration cannot be read.
pub fn show(file: Option<PathBuf>) -> Result<String, Failure> {
    let mut config = Config::load(file.as_deref())?;
    config.store.url = without_password(&config.store.url);
    config.queue.url = without_password(&config.queue.url);
    toml::to_string(&config).map_err(|error| Failure {
        message: format!("cannot show it: {error}"),
        hint: None,
    })
}

fn without_password(url: &str) -> String {
    // Drivers take a password as a parameter too.
    let url = match url.split_once('?') {
        Some((base, parameters)) if parameters.to_lowercase().contains("password") => &format!("{base}?***"),
        _ => url,
    };
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_password("postgres://me:s3cret@db/copass"),
            "postgres://me:***@db/copass"
        );
        assert_eq!(
            without_password("amqp://me:p@ss@mq:5672/%2f"),
            "amqp://me:***@mq:5672/%2f"
        );
        assert_eq!(without_password("sqlite:/tmp/x.db"), "sqlite:/tmp/x.db");
        assert_eq!(
            without_password("postgres://db/copass?user=me&password=s3cret"),
            "postgres://db/copass?***"
        );
    }

    #[test]
    fn the_defaults_are_good_and_can_be_shown() {
        assert!(check(None).is_ok());
        assert!(show(None).unwrap().contains("[gateway]"));
    }
}

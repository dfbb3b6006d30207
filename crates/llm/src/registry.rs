//! Which provider serves which model reference.
//!
//! Agents name a backend and a model. Backends are registered once, at start, from configuration; a reference to one
//! that is not there fails with the setting that would add it, because "unknown backend" helps nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::port::{Error, ErrorKind, Provider};

/// Backend name of the built-in planner.
pub const PLANNER: &str = "planner";

/// Backend name of the scripted provider; present only where configuration asks for it.
pub const SCRIPTED: &str = "scripted";

/// The providers of this process by backend name.
#[derive(Clone, Default)]
pub struct Registry {
    providers: BTreeMap<String, Arc<dyn Provider>>,
}

impl Registry {
    /// A registry with no provider at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the provider of a backend, in place of the one that was there.
    pub fn insert(&mut self, backend: impl Into<String>, provider: Arc<dyn Provider>) {
        self.providers.insert(backend.into(), provider);
    }

    /// The same registry with one more provider.
    #[must_use]
    pub fn with(mut self, backend: impl Into<String>, provider: Arc<dyn Provider>) -> Self {
        self.insert(backend, provider);
        self
    }

    /// Whether a backend is set up.
    pub fn contains(&self, backend: &str) -> bool {
        self.providers.contains_key(backend)
    }

    /// The names of all backends that are set up, sorted.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    /// The provider that serves `model` on `backend`.
    ///
    /// An empty backend, and the model names `planner` and `scripted`, resolve by the model: that is how a default
    /// model is written in one word in the configuration.
    pub fn resolve(&self, backend: &str, model: &str) -> Result<Arc<dyn Provider>, Error> {
        let name = match (backend, model) {
            (_, PLANNER | SCRIPTED) => model,
            ("", _) => model.split('/').next().unwrap_or(model),
            _ => backend,
        };
        self.providers.get(name).cloned().ok_or_else(|| not_configured(name))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.providers.keys()).finish()
    }
}

fn not_configured(backend: &str) -> Error {
    let setting = match backend {
        "anthropic" => "set ANTHROPIC_API_KEY (or COPASS__MODELS__ANTHROPIC__API_KEY)".to_owned(),
        "google" => "set GEMINI_API_KEY (or COPASS__MODELS__GOOGLE__API_KEY)".to_owned(),
        "hermes" => "set OPENROUTER_API_KEY (or COPASS__MODELS__HERMES__API_KEY)".to_owned(),
        SCRIPTED => "set COPASS__MODELS__SCRIPTED__PATH to a script file".to_owned(),
        "" => "set COPASS__MODELS__DEFAULT to a model, for example planner".to_owned(),
        other => format!("set COPASS__MODELS__{}__API_KEY", setting_name(other)),
    };
    Error::new(
        ErrorKind::NotConfigured,
        format!("no model provider is set up for `{backend}`: {setting}"),
    )
}

fn setting_name(backend: &str) -> String {
    backend
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Planner;

    #[test]
    fn planner_is_found_by_backend_and_by_model() {
        let registry = Registry::new().with(PLANNER, Arc::new(Planner::concierge().unwrap()));
        for (backend, model) in [
            ("planner", ""),
            ("planner", "planner"),
            ("", "planner"),
            ("anthropic", "planner"),
        ] {
            assert_eq!(
                registry.resolve(backend, model).unwrap().name(),
                "planner",
                "{backend} {model}"
            );
        }
    }

    #[test]
    fn missing_backend_names_the_setting() {
        for (backend, setting) in [
            ("anthropic", "ANTHROPIC_API_KEY"),
            ("scripted", "COPASS__MODELS__SCRIPTED__PATH"),
            ("my-x", "MY_X"),
        ] {
            let error = Registry::new().resolve(backend, "some-model").err().unwrap();
            assert_eq!(error.kind, ErrorKind::NotConfigured);
            assert!(error.message.contains(setting), "{}", error.message);
        }
    }
}

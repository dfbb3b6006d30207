//! What an agent may look like: the rules of `rest.md` 12.A, used at every entrance that makes or changes one.
//!
//! Problems of shape are collected and answered together (422); a combination that makes no sense and a secret in a text
//! are answered one at a time (400).

use copass_errors::{Error, ErrorCode, FieldProblem, Result};
use copass_types::validate;

use super::{domain::ModelSettings, secrets_scan};

const ALLOWLIST_MAX_ENTRIES: usize = 512;
const ALLOWLIST_ENTRY_MAX_CHARS: usize = 256;
const MODEL_MAX_CHARS: usize = 255;
const MAX_TOKENS_CAP: u32 = 10_000_000;
const MAX_TURNS_CAP: u32 = 1_000;
const TIMEOUT_S_CAP: u32 = 86_400;
const DEFAULT_BACKEND: &str = "anthropic";
const HERMES: &str = "hermes";
const COMPUTE_PROVIDER: &str = "e2b";

/// Backends an agent may name, with the model that a caller who names none gets.
const BACKENDS: [(&str, &str); 3] = [
    ("anthropic", "claude-sonnet-4-6"),
    ("google", "gemini-2.5-flash"),
    (HERMES, "hermes/anthropic/claude-sonnet-4-5"),
];

/// An agent as a caller describes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Draft {
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) system_prompt: String,
    pub(crate) tool_allowlist: Vec<String>,
    pub(crate) model_settings: SettingsDraft,
}

/// Model settings as a caller gives them; empty words mean the default.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SettingsDraft {
    pub(crate) backend: String,
    pub(crate) model: String,
    pub(crate) temperature: Option<f64>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) max_turns: Option<u32>,
    pub(crate) timeout_s: Option<u32>,
    pub(crate) compute_provider: Option<String>,
}

impl Draft {
    /// Checks everything and fills the defaults in.
    pub(crate) fn check(&self) -> Result<ModelSettings> {
        let mut problems = Vec::new();
        let mut body = |field: &str, outcome: Result<(), String>| {
            if let Err(message) = outcome {
                problems.push(FieldProblem::body(field, message));
            }
        };
        body("slug", validate::agent_slug(&self.slug));
        body("name", validate::name(&self.name, validate::NAME_MAX_CHARS));
        body("system_prompt", prompt(&self.system_prompt));
        if let Some(description) = &self.description {
            body(
                "description",
                validate::length(description, validate::DESCRIPTION_MAX_CHARS),
            );
        }
        body("tool_allowlist", allowlist(&self.tool_allowlist));
        problems.extend(self.model_settings.problems());
        if !problems.is_empty() {
            return Err(Error::invalid(problems));
        }
        let settings = self.model_settings.complete()?;
        refuse_secrets("system_prompt", &self.system_prompt)?;
        refuse_secrets("description", self.description.as_deref().unwrap_or_default())?;
        refuse_secrets("name", &self.name)?;
        Ok(settings)
    }
}

impl SettingsDraft {
    fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: String| {
            let mut problem = FieldProblem::body("model_settings", message);
            problem.loc.push(field.to_owned());
            problems.push(problem);
        };
        if !self.backend.is_empty() && !BACKENDS.iter().any(|(backend, _)| *backend == self.backend) {
            problem("backend", "must be anthropic, google or hermes".to_owned());
        }
        if !self.model.is_empty()
            && let Err(message) = validate::name(&self.model, MODEL_MAX_CHARS)
        {
            problem("model", message);
        }
        if self
            .temperature
            .is_some_and(|temperature| !(0.0..=2.0).contains(&temperature))
        {
            problem("temperature", "must be between 0 and 2".to_owned());
        }
        for (field, value, cap) in [
            ("max_tokens", self.max_tokens, MAX_TOKENS_CAP),
            ("max_turns", self.max_turns, MAX_TURNS_CAP),
            ("timeout_s", self.timeout_s, TIMEOUT_S_CAP),
        ] {
            if value.is_some_and(|value| !(1..=cap).contains(&value)) {
                problem(field, format!("must be between 1 and {cap}"));
            }
        }
        problems
    }

    fn complete(&self) -> Result<ModelSettings> {
        let backend = if self.backend.is_empty() {
            DEFAULT_BACKEND
        } else {
            &self.backend
        };
        let default_model = BACKENDS
            .iter()
            .find(|(name, _)| *name == backend)
            .map_or("", |(_, model)| model);
        let compute_provider = match (backend == HERMES, self.compute_provider.as_deref()) {
            // The public clients never send it, so hermes means it (gaps.md G23).
            (true, None | Some("" | COMPUTE_PROVIDER)) => Some(COMPUTE_PROVIDER.to_owned()),
            (false, None | Some("")) => None,
            (true, Some(_)) => {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    "model_settings.compute_provider must be e2b for the backend hermes; leave it out to get that",
                ));
            }
            (false, Some(_)) => {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    format!(
                        "model_settings.compute_provider goes with the backend hermes only; leave it out for {backend}"
                    ),
                ));
            }
        };
        Ok(ModelSettings {
            backend: backend.to_owned(),
            model: if self.model.is_empty() {
                default_model.to_owned()
            } else {
                self.model.clone()
            },
            temperature: self.temperature,
            max_tokens: self.max_tokens,
            max_turns: self.max_turns,
            timeout_s: self.timeout_s,
            compute_provider,
        })
    }
}

fn prompt(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > validate::PROMPT_MAX_BYTES {
        return Err(format!("must have at most {} bytes", validate::PROMPT_MAX_BYTES));
    }
    validate::length(text, validate::PROMPT_MAX_BYTES)
}

fn allowlist(entries: &[String]) -> Result<(), String> {
    if entries.len() > ALLOWLIST_MAX_ENTRIES {
        return Err(format!("must have at most {ALLOWLIST_MAX_ENTRIES} entries"));
    }
    entries.iter().enumerate().try_for_each(|(index, entry)| {
        validate::name(entry, ALLOWLIST_ENTRY_MAX_CHARS).map_err(|message| format!("entry {}: {message}", index + 1))
    })
}

fn refuse_secrets(field: &str, text: &str) -> Result<()> {
    let Some(finding) = secrets_scan::find(text) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorCode::SecretDetected,
        format!(
            "{field}, line {}, column {} looks like a secret ({}); take it out, and give the agent a data source or an \
             integration that holds the credential instead",
            finding.line, finding.column, finding.kind
        ),
    ))
}

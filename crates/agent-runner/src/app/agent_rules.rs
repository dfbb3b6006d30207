//! What an agent may look like: the rules of `rest.md` 12.A, used at every entrance that makes or changes one.
//!
//! Problems of shape are collected and answered together (422); a combination that makes no sense and a secret in a text
//! are answered one at a time (400).

use copass_errors::{Error, ErrorCode, FieldProblem, Result};
use copass_types::validate;

use super::{
    domain::{Agent, AgentStatus, ModelSettings},
    secrets_scan,
};

const ALLOWLIST_MAX_ENTRIES: usize = 512;
const ALLOWLIST_ENTRY_MAX_CHARS: usize = 256;
const SOURCES_MAX: usize = 64;
const SOURCE_MAX_CHARS: usize = 128;
const MODEL_MAX_CHARS: usize = 255;
const MAX_TOKENS_CAP: u32 = 10_000_000;
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

/// Settings that are named change, the others stay.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SettingsMerge {
    pub(crate) backend: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) temperature: Option<f64>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) max_turns: Option<u32>,
    pub(crate) timeout_s: Option<u32>,
    pub(crate) compute_provider: Option<String>,
}

/// How model settings change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SettingsChange {
    /// All of them at once; the backend must be named.
    Replace(SettingsDraft),
    /// Those that are named.
    Merge(SettingsMerge),
}

/// What a caller wants changed; absent fields stay as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Patch {
    pub(crate) name: Option<String>,
    /// `Some(None)` takes it away.
    pub(crate) description: Option<Option<String>>,
    pub(crate) system_prompt: Option<String>,
    pub(crate) tool_allowlist: Option<Vec<String>>,
    /// `Some(None)` is the caller's default set.
    pub(crate) tool_sources: Option<Option<Vec<String>>>,
    pub(crate) model_settings: Option<SettingsChange>,
    pub(crate) status: Option<String>,
}

/// Problems of shape, collected.
#[derive(Default)]
struct Problems(Vec<FieldProblem>);

impl Problems {
    fn check(&mut self, field: &str, outcome: Result<(), String>) {
        if let Err(message) = outcome {
            self.0.push(FieldProblem::body(field, message));
        }
    }

    fn answer(self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::invalid(self.0))
        }
    }
}

impl Draft {
    /// Checks the shape of everything and fills the defaults in.
    pub(crate) fn check(&self) -> Result<ModelSettings> {
        let mut problems = Problems::default();
        problems.check("slug", validate::agent_slug(&self.slug));
        problems.check("name", validate::name(&self.name, validate::NAME_MAX_CHARS));
        problems.check("system_prompt", prompt(&self.system_prompt));
        problems.check("description", description(self.description.as_deref()));
        problems.check("tool_allowlist", allowlist(&self.tool_allowlist));
        problems.0.extend(self.model_settings.problems(&["model_settings"]));
        problems.answer()?;
        self.model_settings.complete()
    }
}

impl Patch {
    /// The agent as it would be, checked; the version is for the caller to raise.
    pub(crate) fn apply(&self, present: &Agent) -> Result<Agent> {
        let mut next = present.clone();
        let mut problems = Problems::default();
        if let Some(name) = &self.name {
            problems.check("name", validate::name(name, validate::NAME_MAX_CHARS));
            next.name.clone_from(name);
        }
        if let Some(text) = &self.description {
            problems.check("description", description(text.as_deref()));
            next.description.clone_from(text);
        }
        if let Some(text) = &self.system_prompt {
            problems.check("system_prompt", prompt(text));
            next.system_prompt.clone_from(text);
        }
        if let Some(entries) = &self.tool_allowlist {
            problems.check("tool_allowlist", allowlist(entries));
            next.tool_allowlist.clone_from(entries);
        }
        if let Some(names) = &self.tool_sources {
            problems.check("tool_sources", sources(names.as_deref().unwrap_or_default()));
            next.tool_sources = names.as_deref().map(without_repeats);
        }
        if let Some(text) = &self.status {
            match AgentStatus::from_text(text) {
                Some(status) => next.status = status,
                None => problems.check("status", Err("must be active or archived".to_owned())),
            }
        }
        let settings = self.model_settings.as_ref().map(|change| match change {
            SettingsChange::Replace(draft) => {
                problems.0.extend(draft.problems(&["model_settings"]));
                if draft.backend.is_empty() {
                    let message = "must be named, because these settings replace all there are; to change some of \
                                   them use PATCH …/model-settings";
                    problems.0.push(problem_at(&["model_settings", "backend"], message));
                }
                draft.clone()
            }
            SettingsChange::Merge(merge) => {
                problems.0.extend(merge.problems());
                let draft = merge.over(&present.model_settings);
                problems.0.extend(draft.problems(&[]));
                draft
            }
        });
        problems.answer()?;
        if let Some(draft) = settings {
            next.model_settings = draft.complete()?;
        }
        refuse_new_secrets(&next, Some(present))?;
        Ok(next)
    }
}

impl SettingsMerge {
    fn problems(&self) -> Vec<FieldProblem> {
        if *self == Self::default() {
            let message = "name at least one of backend, model, temperature, max_tokens, max_turns, timeout_s and \
                           compute_provider";
            return vec![problem_at(&[], message)];
        }
        [("backend", &self.backend), ("model", &self.model)]
            .into_iter()
            .filter(|(_, value)| value.as_deref() == Some(""))
            .map(|(field, _)| problem_at(&[field], "must not be empty; leave it out to keep the present one"))
            .collect()
    }

    /// The present settings with these in their place. Another backend brings its own default model, and what went with
    /// the old one goes: the only compute provider there is was the default of hermes.
    fn over(&self, present: &ModelSettings) -> SettingsDraft {
        let backend = self.backend.as_ref().unwrap_or(&present.backend);
        let stays = *backend == present.backend;
        SettingsDraft {
            backend: backend.clone(),
            model: match &self.model {
                Some(model) => model.clone(),
                None if stays => present.model.clone(),
                None => String::new(),
            },
            temperature: self.temperature.or(present.temperature),
            max_tokens: self.max_tokens.or(present.max_tokens),
            max_turns: self.max_turns.or(present.max_turns),
            timeout_s: self.timeout_s.or(present.timeout_s),
            compute_provider: match &self.compute_provider {
                Some(provider) => Some(provider.clone()),
                None if stays => present.compute_provider.clone(),
                None => None,
            },
        }
    }
}

impl From<ModelSettings> for SettingsDraft {
    fn from(settings: ModelSettings) -> Self {
        Self {
            backend: settings.backend,
            model: settings.model,
            temperature: settings.temperature,
            max_tokens: settings.max_tokens,
            max_turns: settings.max_turns,
            timeout_s: settings.timeout_s,
            compute_provider: settings.compute_provider,
        }
    }
}

impl SettingsDraft {
    /// The settings of an agent that exists for one run; its backend is called `provider` there (`rest.md` 12.15).
    pub(crate) fn check_ad_hoc(&self) -> Result<ModelSettings> {
        let mut problems = Problems(self.problems(&[]));
        for problem in &mut problems.0 {
            for part in &mut problem.loc {
                if part == "backend" {
                    "provider".clone_into(part);
                }
            }
        }
        problems.answer()?;
        self.complete()
    }

    /// What is wrong with single settings; `place` is where in the body they are.
    fn problems(&self, place: &[&str]) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        let mut problem = |field: &str, message: String| {
            let mut problem = problem_at(place, message);
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
            ("max_turns", self.max_turns, validate::MAX_TURNS),
            ("timeout_s", self.timeout_s, validate::MAX_TIMEOUT_S),
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

fn problem_at(place: &[&str], message: impl Into<String>) -> FieldProblem {
    let mut problem = FieldProblem::body("", message);
    problem.loc.truncate(1);
    problem.loc.extend(place.iter().map(|part| (*part).to_owned()));
    problem
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

fn description(text: Option<&str>) -> Result<(), String> {
    validate::length(text.unwrap_or_default(), validate::DESCRIPTION_MAX_CHARS)
}

fn allowlist(entries: &[String]) -> Result<(), String> {
    names(entries, ALLOWLIST_MAX_ENTRIES, ALLOWLIST_ENTRY_MAX_CHARS)
}

fn sources(names_of_sources: &[String]) -> Result<(), String> {
    names(names_of_sources, SOURCES_MAX, SOURCE_MAX_CHARS)
}

fn names(entries: &[String], max_entries: usize, max_chars: usize) -> Result<(), String> {
    if entries.len() > max_entries {
        return Err(format!("must have at most {max_entries} entries"));
    }
    entries.iter().enumerate().try_for_each(|(index, entry)| {
        validate::name(entry, max_chars).map_err(|message| format!("entry {}: {message}", index + 1))
    })
}

/// Each name once, where it first stands.
fn without_repeats(names: &[String]) -> Vec<String> {
    let mut once: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !once.contains(name) {
            once.push(name.clone());
        }
    }
    once
}

/// Refuses texts that look like a secret and that the agent did not have before; what it had was accepted once, and must
/// not stop a change of something else.
pub(crate) fn refuse_new_secrets(next: &Agent, present: Option<&Agent>) -> Result<()> {
    let had = present.map(texts);
    for (index, (field, text)) in texts(next).into_iter().enumerate() {
        if had.is_none_or(|had| had[index].1 != text) {
            refuse_secret(field, text)?;
        }
    }
    let had = present.map(lists);
    for (index, (field, list)) in lists(next).into_iter().enumerate() {
        for (number, entry) in (1..).zip(list) {
            if had.is_none_or(|had| !had[index].1.contains(entry)) {
                refuse_secret(&format!("{field}, entry {number}"), entry)?;
            }
        }
    }
    Ok(())
}

fn texts(agent: &Agent) -> [(&'static str, &str); 4] {
    [
        ("system_prompt", &agent.system_prompt),
        ("description", agent.description.as_deref().unwrap_or_default()),
        ("name", &agent.name),
        ("model_settings.model", &agent.model_settings.model),
    ]
}

fn lists(agent: &Agent) -> [(&'static str, &[String]); 2] {
    [
        ("tool_allowlist", &agent.tool_allowlist),
        ("tool_sources", agent.tool_sources.as_deref().unwrap_or_default()),
    ]
}

pub(crate) fn refuse_secret(place: &str, text: &str) -> Result<()> {
    let Some(finding) = secrets_scan::find(text) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorCode::SecretDetected,
        format!(
            "{place}, line {}, column {} looks like a secret ({}); take it out, and give the agent a data source or an \
             integration that holds the credential instead",
            finding.line, finding.column, finding.kind
        ),
    ))
}

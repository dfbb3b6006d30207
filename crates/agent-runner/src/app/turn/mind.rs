//! Which model works for a run, and within which limits: from an agent's settings to a provider.
//!
//! A provider that is not set up is a reason that names the setting. In `dev` the built-in planner takes its place and
//! the run says so; elsewhere the run fails (`design.md` 12.14).

use std::{sync::Arc, time::Duration};

use copass_errors::{Error, ErrorCode, Result};
use copass_llm::{AGENT_PLANNER, PLANNER, Provider, SCRIPTED, Usage};
use copass_runtime::clock;

use super::Worker;
use crate::app::domain::ModelSettings;

/// The model of one run.
#[derive(Clone)]
pub(super) struct Mind {
    pub(super) provider: Arc<dyn Provider>,
    backend: String,
    /// As the provider takes it.
    pub(super) model: String,
    /// As traces and steps name it.
    pub(super) label: String,
    pub(super) system_prompt: String,
    pub(super) temperature: Option<f64>,
    /// Tokens the whole run may write.
    pub(super) max_tokens: Option<u32>,
    pub(super) max_turns: u32,
    /// What the operator should know about the choice.
    pub(super) warning: Option<String>,
}

impl Mind {
    /// The model for these settings.
    pub(super) fn new(
        worker: &Worker,
        settings: &ModelSettings,
        system_prompt: String,
        is_agent: bool,
    ) -> Result<Self> {
        let limits = &worker.config.limits;
        let (backend, model) = (settings.backend.as_str(), settings.model.as_str());
        // The Concierge's planner knows management only; agents have one of their own.
        let backend = match model {
            PLANNER if is_agent => AGENT_PLANNER,
            // Served by the model's name, whatever the backend: so are its costs.
            SCRIPTED => SCRIPTED,
            _ => backend,
        };
        let lookup = if backend == AGENT_PLANNER { AGENT_PLANNER } else { model };
        let mut mind = Self {
            backend: backend.to_owned(),
            temperature: settings.temperature,
            max_tokens: settings.max_tokens,
            max_turns: settings
                .max_turns
                .unwrap_or(limits.max_turns)
                .clamp(1, limits.max_turns_cap),
            ..Self::none(settings, system_prompt)
        };
        mind.provider = match worker.models.resolve(backend, lookup) {
            Ok(provider) => provider,
            Err(error) if is_agent && worker.config.planner_fallback => {
                mind.warning = Some(format!(
                    "the built-in planner, which is not a language model, worked instead of {}: {}",
                    mind.label, error.message
                ));
                AGENT_PLANNER.clone_into(&mut mind.backend);
                AGENT_PLANNER.clone_into(&mut mind.model);
                mind.label = AGENT_PLANNER.to_owned();
                worker
                    .models
                    .resolve(AGENT_PLANNER, AGENT_PLANNER)
                    .map_err(not_configured)?
            }
            Err(error) => return Err(not_configured(error)),
        };
        Ok(mind)
    }

    /// Stands in a run whose model cannot work.
    pub(super) fn none(settings: &ModelSettings, system_prompt: String) -> Self {
        Self {
            provider: Arc::new(NoProvider),
            backend: settings.backend.clone(),
            model: settings.model.clone(),
            label: label(settings),
            system_prompt,
            temperature: None,
            max_tokens: None,
            max_turns: 1,
            warning: None,
        }
    }

    /// Whether tokens cost nothing, however many there are.
    pub(super) fn is_free(&self, worker: &Worker) -> bool {
        worker.prices.is_free(self.backend(), &self.model, clock::now())
    }

    /// What these tokens cost; `None` where the price is not known.
    pub(super) fn cost(&self, worker: &Worker, usage: &Usage) -> Option<copass_llm::Cost> {
        worker.prices.cost(self.backend(), &self.model, usage, clock::now())
    }

    fn backend(&self) -> &str {
        if self.backend.is_empty() {
            self.provider.name()
        } else {
            &self.backend
        }
    }
}

/// Longest run, by the agent's settings, what its caller allows, and the operator's limit.
pub(super) fn run_timeout(worker: &Worker, settings: &ModelSettings, allowed: Duration) -> Duration {
    let limits = &worker.config.limits;
    let own = settings
        .timeout_s
        .map_or(limits.run_timeout, |seconds| Duration::from_secs(seconds.into()));
    let allowed = if allowed.is_zero() { own } else { allowed.min(own) };
    allowed.min(limits.run_timeout_cap)
}

/// `backend/model`, without saying the same twice.
pub(super) fn label(settings: &ModelSettings) -> String {
    match (settings.backend.as_str(), settings.model.as_str()) {
        ("", model) => model.to_owned(),
        (backend, model) if model.is_empty() || model == backend => backend.to_owned(),
        (backend, model) if model.starts_with(&format!("{backend}/")) => model.to_owned(),
        (backend, model) => format!("{backend}/{model}"),
    }
}

fn not_configured(error: copass_llm::Error) -> Error {
    Error::new(ErrorCode::ProviderNotConfigured, error.message)
}

/// Answers nothing: stands where no provider works.
struct NoProvider;

#[async_trait::async_trait]
impl Provider for NoProvider {
    fn name(&self) -> &str {
        "none"
    }

    async fn stream(&self, _: copass_llm::Request) -> std::result::Result<copass_llm::EventStream, copass_llm::Error> {
        Err(copass_llm::Error::new(
            copass_llm::ErrorKind::NotConfigured,
            "no provider",
        ))
    }
}

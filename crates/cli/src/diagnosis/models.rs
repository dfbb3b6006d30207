//! Model providers: not there, failing, or without a price.

use copass_types::api::Agent;

use super::{Case, Finding, Unrepeatable, update};
use crate::{models, shell};

/// Environment variable and setting that make a backend work.
const SETTINGS: [(&str, &str, &str); 3] = [
    (
        "anthropic",
        "COPASS__MODELS__ANTHROPIC__API_KEY",
        "models.anthropic.api_key",
    ),
    ("google", "COPASS__MODELS__GOOGLE__API_KEY", "models.google.api_key"),
    ("hermes", "COPASS__MODELS__HERMES__BASE_URL", "models.hermes.base_url"),
];
const NOT_SET_UP: &str = "no model provider is set up for `";
/// How servers say that a provider takes neither this request nor the same one later.
const REFUSED_REQUEST: [&str; 3] = ["refuses the request", "http 400", "http 404"];
/// How they say that a provider does not answer what was asked for.
const REFUSED_PROMPT: &str = "refuses this prompt";

/// The backend of the model has no key or address on the server, whether the run failed or the planner stood in.
pub(super) fn not_configured(case: &Case<'_>) -> Option<Finding> {
    let (remark, backend) = case.remarks().find_map(|remark| {
        let (_, rest) = remark.split_once(NOT_SET_UP)?;
        let (backend, _) = rest.split_once('`')?;
        Some((remark, backend))
    })?;
    let stood_in = if remark.contains("planner") {
        "; the built-in planner, which is not a language model, worked instead"
    } else {
        ""
    };
    let finding = Finding::new(format!("the server has no model provider for {backend}{stood_in}"));
    Some(match setting_of(backend) {
        Some((variable, setting)) => finding
            .advice(format!(
                "set {setting} on the server, for example in its environment, and start it again:"
            ))
            .command(format!("export {variable}=…")),
        None => match case.agent {
            Some(agent) => finding
                .advice("choose a backend that servers of this kind have:")
                .command(update(
                    agent,
                    &["--backend", "anthropic", "--model", models::default_model("anthropic")],
                )),
            None => finding.advice("choose anthropic, google or hermes"),
        },
    })
}

fn setting_of(backend: &str) -> Option<(&'static str, &'static str)> {
    SETTINGS
        .iter()
        .find(|(name, ..)| *name == backend)
        .map(|(_, variable, setting)| (*variable, *setting))
}

/// The provider is there and failed.
pub(super) fn failed(case: &Case<'_>) -> Option<Finding> {
    let run = &case.detail.run;
    if run.error_type.as_deref() != Some("ProviderError") || not_configured(case).is_some() {
        return None;
    }
    let message = run.error_message.as_deref().unwrap_or("it gave no reason");
    let finding = Finding::new(format!("the model provider failed: {message}"));
    let backend = run
        .model
        .as_deref()
        .and_then(|model| model.split('/').next())
        .unwrap_or_default();
    let lower = message.to_lowercase();
    let is_key_refused = [
        "does not accept the key",
        "401",
        "403",
        "authentic",
        "api key",
        "api_key",
        "x-api-key",
        "permission",
    ]
    .iter()
    .any(|word| lower.contains(word));
    if let Some((_, setting)) = setting_of(backend).filter(|_| is_key_refused) {
        return Some(case.again(finding, &format!("check {setting} on the server, then ")));
    }
    if lower.contains(REFUSED_PROMPT) {
        return Some(
            finding.advice("the same would be refused again; change what is asked, or what the model is told"),
        );
    }
    if REFUSED_REQUEST.iter().any(|words| lower.contains(words)) {
        return Some(refused(
            case,
            finding,
            lower.contains("404") || lower.contains("not_found"),
        ));
    }
    let used = if run.output_text.as_ref().is_some_and(|text| !text.is_empty()) {
        "what was written before is kept and is not the whole answer"
    } else if case.tool_steps().next().is_some() {
        "the calls that were made before stay made"
    } else {
        "nothing of the answer was used"
    };
    Some(case.again(finding, &format!("{used}; if it was a passing failure, ")))
}

/// The provider refuses the request for good, so that the same once more would be in vain.
fn refused(case: &Case<'_>, finding: Finding, is_unknown: bool) -> Finding {
    let run = &case.detail.run;
    let model = run.model.as_deref().unwrap_or("its model");
    let why = if is_unknown {
        format!("most likely the provider has no model of the name {model}")
    } else {
        format!("{model} or one of the settings is not what the provider takes")
    };
    let Some(agent) = case.agent else {
        return match case.unrepeatable() {
            Some(Unrepeatable::Concierge) => finding.advice(format!(
                "{why}; name one that it has in models.concierge on the server, then {}",
                Unrepeatable::Concierge.again()
            )),
            Some(Unrepeatable::Stateless) => finding.advice(format!(
                "{why}; send the request to agents/run with another (`copass run --model <model> \"<message>\"`)"
            )),
            None => finding.advice(format!("{why}; give the agent one that it has")),
        };
    };
    if agent.version != run.agent_version && !is_of(agent, model) {
        return case.again(finding, &format!("{why}; the agent has another by now, so "));
    }
    let settings = &agent.model_settings;
    let usual = models::BACKENDS
        .iter()
        .find(|(name, model, _)| *name == settings.backend && *model != settings.model)
        .map_or_else(String::new, |(_, model, _)| format!(" (its usual one is {model})"));
    let finding = if is_unknown {
        finding.advice(format!("{why}; name one that it has{usual}, then run it again:"))
    } else {
        finding
            .advice(format!(
                "{why}; look at them, change what is wrong or take another model{usual}, then run it again:"
            ))
            .command(shell::copass(&["agent", "show", &agent.slug]))
    };
    finding
        .command(format!("{} <model>", update(agent, &["--model"])))
        .command(case.retry())
}

/// Whether a run's `backend/model` is what the agent has.
fn is_of(agent: &Agent, label: &str) -> bool {
    let settings = &agent.model_settings;
    label == settings.model || label.split_once('/') == Some((settings.backend.as_str(), settings.model.as_str()))
}

/// The run is over and nobody knows what it cost.
pub(super) fn no_price(case: &Case<'_>) -> Option<Finding> {
    let run = &case.detail.run;
    let used = run.tokens_in.unwrap_or_default() + run.tokens_out.unwrap_or_default();
    if !case.is_over() || run.cost_microcents.is_some() {
        return None;
    }
    let model = run.model.as_deref().unwrap_or("its model");
    if case.remarks().any(|remark| remark.contains("told no usage")) {
        return Some(
            Finding::new(format!(
                "the cost is unknown: the provider of {model} did not tell what an answer used"
            ))
            .advice("its own bill tells; an answer that is cut off before its end often goes without"),
        );
    }
    if used == 0 {
        return None;
    }
    Some(
        Finding::new(format!(
            "the cost is unknown: the server's price list has no price for {model}"
        ))
        .advice("write its price into a file and name that file in models.prices_file on the server:")
        .command("export COPASS__MODELS__PRICES_FILE=prices.toml"),
    )
}

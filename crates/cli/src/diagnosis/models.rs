//! Model providers: not there, failing, or without a price.

use super::{Case, Finding, update};

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
                    &[
                        "--backend",
                        "anthropic",
                        "--model",
                        crate::models::default_model("anthropic"),
                    ],
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
    let is_refused = [
        "401",
        "403",
        "authentic",
        "api key",
        "api_key",
        "x-api-key",
        "permission",
    ]
    .iter()
    .any(|word| message.to_lowercase().contains(word));
    Some(match setting_of(backend) {
        Some((_, setting)) if is_refused => finding
            .advice(format!("check {setting} on the server, then run it again:"))
            .command(case.retry()),
        _ => finding
            .advice("nothing of the answer was used; if it was a passing failure, run it again:")
            .command(case.retry()),
    })
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

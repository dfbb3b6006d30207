//! Runs that ended at one of their limits.

use copass_types::{api::ModelSettings, validate};

use super::{Case, Finding, update};

/// Longest run that servers grant by default, in seconds; asking for more than the operator allows changes nothing.
const LONG_RUN_S: u64 = 600;
/// More tokens than this no agent may ask for.
const MAX_TOKENS: u32 = 10_000_000;
/// How servers begin to say that the last answer came to the limit of tokens.
const CUT_OFF: &str = "the model's answer was cut off";

/// A limit that an agent sets for its runs.
struct Limit {
    flag: &'static str,
    /// What the agent has by now.
    own: fn(&ModelSettings) -> Option<u32>,
    /// What an agent may ask for at most.
    most: u32,
}

const TURNS: Limit = Limit {
    flag: "--max-turns",
    own: |settings| settings.max_turns,
    most: validate::MAX_TURNS,
};
const TOKENS: Limit = Limit {
    flag: "--max-tokens",
    own: |settings| settings.max_tokens,
    most: MAX_TOKENS,
};
const TIME: Limit = Limit {
    flag: "--timeout-s",
    own: |settings| settings.timeout_s,
    most: validate::MAX_TIMEOUT_S,
};

/// The limits that a run came to.
pub(super) fn reached(case: &Case<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_out_of_tokens = false;
    for remark in case.remarks() {
        if let Some(turns) = number_in(remark, "stopped after ", " model answers") {
            let problem = format!("the run stopped at its limit of {turns} model answers");
            findings.push(raise(case, problem, &TURNS, turns));
        }
        if let Some(written) = number_in(remark, "stopped after ", " written tokens") {
            is_out_of_tokens = true;
            // The last answer may have gone beyond the limit. Servers that do not name it name what was written only.
            let limit = number_behind(remark, "this run may write ").unwrap_or(written);
            let problem = format!("the run stopped at its limit of written tokens ({limit})");
            findings.push(raise(case, problem, &TOKENS, limit));
        }
    }
    if !is_out_of_tokens {
        let remark = case.remarks().find(|remark| remark.starts_with(CUT_OFF));
        findings.extend(remark.map(|remark| cut_off(case, remark)));
    }
    if case.detail.run.status == "timeout" {
        let own = case.agent.and_then(|agent| (TIME.own)(&agent.model_settings));
        let message = case.detail.run.error_message.as_deref().unwrap_or_default();
        let limit = number_in(message, "took longer than ", " s")
            .or(own.map(u64::from))
            .unwrap_or(LONG_RUN_S);
        let problem = format!("the run took longer than its limit of {limit} s");
        findings.push(raise(case, problem, &TIME, limit));
    }
    findings
}

/// The last answer is not whole. Without a limit of the agent's it is the model that writes no more at once.
fn cut_off(case: &Case<'_>, remark: &str) -> Finding {
    match case.agent.and_then(|agent| (TOKENS.own)(&agent.model_settings)) {
        Some(own) => raise(case, remark.to_owned(), &TOKENS, u64::from(own)),
        None => Finding::new(remark).advice(
            "the agent sets no limit of its own, so the model writes no more at once: ask for shorter answers, or split \
             the work into several runs",
        ),
    }
}

/// More of what the run ran out of: never less than the agent has by now, nor more than it may ask for.
fn raise(case: &Case<'_>, problem: String, limit: &Limit, reached: u64) -> Finding {
    let finding = Finding::new(problem);
    let Some(agent) = case.agent else {
        return finding.advice("ask less of one run");
    };
    let most = u64::from(limit.most);
    let own = (limit.own)(&agent.model_settings).map_or(0, u64::from);
    let was_changed = agent.version != case.detail.run.agent_version;
    if reached >= most {
        finding.advice(format!(
            "{most} is the most that {} takes; ask less of one run, or split the work into several",
            limit.flag
        ))
    } else if own > reached && was_changed {
        finding
            .advice(format!("the agent has {own} by now, so run it again:"))
            .command(case.retry())
    } else if own > reached {
        finding.advice(format!(
            "the agent asks for {own}, and this server grants no more; ask less of one run, or split the work into several"
        ))
    } else {
        let more = reached.saturating_mul(2).clamp(1, most).to_string();
        finding
            .advice("give it more, or ask less of one run; then run it again:")
            .command(update(agent, &[limit.flag, &more]))
            .command(case.retry())
    }
}

/// The whole number that follows a text.
fn number_behind(text: &str, before: &str) -> Option<u64> {
    let (_, rest) = text.split_once(before)?;
    let digits = rest.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The whole number between two texts.
fn number_in(text: &str, before: &str, after: &str) -> Option<u64> {
    let (_, rest) = text.split_once(before)?;
    let (number, _) = rest.split_once(after)?;
    let whole = number.split('.').next()?;
    whole.trim().parse().ok()
}

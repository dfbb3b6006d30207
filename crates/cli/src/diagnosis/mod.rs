//! From what went wrong to the command that mends it.
//!
//! One place for the whole mapping, fed with what the server already told: a run with its trace and steps, and the agent
//! as it is now. It asks nobody and never fails; where it cannot tell, it says nothing. Commands are complete lines with
//! the agent's present settings in them, so that they can be pasted; what only a person can choose stands in them as
//! `<model>`, which a shell refuses.

mod limits;
mod models;
mod nearest;
#[cfg(test)]
mod tests;
mod tools;

use copass_types::api::{Agent, RunDetail, RunStep};

use crate::{shell, table, trace::Trace};

/// A problem, what to do about it, and the lines to paste.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What is wrong.
    pub(crate) problem: String,
    /// What to do; may be empty where the command says it all.
    pub(crate) advice: String,
    /// Lines for a shell.
    pub(crate) commands: Vec<String>,
}

impl Finding {
    fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            ..Self::default()
        }
    }

    fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    fn command(mut self, line: impl Into<String>) -> Self {
        self.commands.push(line.into());
        self
    }

    /// Lines for a person, the first behind a mark; the commands stand alone so that they can be taken by the mouse.
    pub(crate) fn describe(&self, mark: &str) -> String {
        let mut lines = vec![format!("{mark}{}", table::one_line(&self.problem))];
        if !self.advice.is_empty() {
            lines.push(format!("  {}", table::one_line(&self.advice)));
        }
        lines.extend(self.commands.iter().map(|command| format!("    {command}")));
        lines.join("\n")
    }
}

/// Runs that have no agent of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unrepeatable {
    Concierge,
    Stateless,
}

impl Unrepeatable {
    /// How a person does it over.
    fn again(self) -> &'static str {
        match self {
            Self::Concierge => "ask the Concierge again (`copass chat`)",
            Self::Stateless => "send the request to agents/run once more (`copass run \"<message>\"`)",
        }
    }
}

/// What is known about a run.
pub(crate) struct Case<'a> {
    pub(crate) detail: &'a RunDetail,
    /// As it is now; `None` where the run had no agent of its own, or it cannot be read.
    pub(crate) agent: Option<&'a Agent>,
    trace: Option<Trace>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(detail: &'a RunDetail, agent: Option<&'a Agent>) -> Self {
        Self {
            detail,
            agent,
            trace: Trace::read(detail.tool_resolution_trace.as_ref()),
        }
    }

    /// Everything that is wrong, the cause before its effects.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.agent.and_then(archived));
        findings.extend(models::not_configured(self));
        if let Some(trace) = &self.trace {
            findings.extend(tools::found(self, trace));
        }
        findings.extend(self.unknown_outcomes());
        findings.extend(limits::reached(self));
        findings.extend(models::failed(self));
        findings.extend(models::no_price(self));
        findings.extend(self.lost());
        findings
    }

    fn is_over(&self) -> bool {
        !matches!(self.detail.run.status.as_str(), "pending" | "running")
    }

    fn tool_steps(&self) -> impl Iterator<Item = &'a RunStep> {
        let detail: &'a RunDetail = self.detail;
        detail.steps.iter().filter(|step| step.kind == "tool")
    }

    /// The error message and the warnings.
    fn remarks(&self) -> impl Iterator<Item = &str> {
        let run = &self.detail.run;
        run.error_message.iter().chain(&run.warnings).map(String::as_str)
    }

    /// Which of the runs without an agent of their own this is; servers repeat none of them.
    fn unrepeatable(&self) -> Option<Unrepeatable> {
        match self.detail.run.agent_slug.as_deref()? {
            "@concierge" => Some(Unrepeatable::Concierge),
            slug if slug.starts_with('@') => Some(Unrepeatable::Stateless),
            _ => None,
        }
    }

    /// Ends the advice with doing it over: the line for it where the server takes it, and words where it refuses it.
    fn again(&self, finding: Finding, advice: &str) -> Finding {
        match self.unrepeatable() {
            Some(unrepeatable) => finding.advice(format!("{advice}{}", unrepeatable.again())),
            None => finding.advice(format!("{advice}run it again:")).command(self.retry()),
        }
    }

    fn retry(&self) -> String {
        shell::copass(&["run", "retry", &self.detail.run.run_id])
    }

    /// Calls that were begun and whose end nobody saw.
    fn unknown_outcomes(&self) -> Vec<Finding> {
        self.tool_steps()
            .filter(|step| step.state == "unknown")
            .map(|step| {
                let name = step.name.as_deref().unwrap_or("a tool");
                let arguments = step
                    .arguments
                    .as_ref()
                    .map_or_else(String::new, |arguments| format!(" {arguments}"));
                self.again(
                    Finding::new(format!("nobody knows whether the call {name}{arguments} took effect")),
                    "it was not repeated; look at the other side whether it did, and only then ",
                )
            })
            .collect()
    }

    /// The process that worked on the run died and nothing of it is uncertain.
    fn lost(&self) -> Option<Finding> {
        let run = &self.detail.run;
        let message = run.error_message.as_deref().unwrap_or_default();
        let is_lost = run.status == "failed" && message.contains("was lost, and the run was not finished");
        let is_certain = self.tool_steps().all(|step| step.state != "unknown");
        (is_lost && is_certain).then(|| {
            self.again(
                Finding::new("the process that worked on the run was lost"),
                "no call is left uncertain, so ",
            )
        })
    }
}

/// What is wrong with an agent as its server tells it.
pub(crate) fn of_agent(agent: &Agent, there: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(archived(agent));
    let mut skipped = Vec::new();
    let mut others = Vec::new();
    for warning in &agent.warnings {
        match skipped_source(warning) {
            Some((name, reason)) => skipped.push((name, Some(reason))),
            None => others.push(warning),
        }
    }
    findings.extend(tools::skipped(&skipped, None, Some(agent)));
    let stale = tools::stale_allowlist(
        &agent.allowlist_missing_entries,
        there,
        &[],
        !skipped.is_empty(),
        Some(agent),
    );
    let is_stale = stale.is_some();
    findings.extend(stale);
    let is_every_source_skipped = agent
        .tool_sources
        .as_ref()
        .is_some_and(|own| !own.is_empty() && own.iter().all(|source| skipped.iter().any(|(name, _)| name == source)));
    for warning in others {
        let is_said = (is_stale || tools::has_no_sources(agent)) && tools::is_about_missing_entry(warning)
            || agent.status == "archived" && warning.contains("archived");
        if !is_said {
            findings.push(tools::of_warning(warning, agent, is_stale, is_every_source_skipped));
        }
    }
    findings
}

/// `the tool source X was skipped: reason`, as runs and changes have it.
fn skipped_source(warning: &str) -> Option<(&str, &str)> {
    warning.strip_prefix("the tool source ")?.split_once(" was skipped: ")
}

fn archived(agent: &Agent) -> Option<Finding> {
    (agent.status == "archived").then(|| {
        Finding::new(format!("the agent {} is archived and does not run", agent.slug))
            .advice("make it active again:")
            .command(update(agent, &["--status", "active"]))
    })
}

/// `copass agent update <slug> …`.
fn update(agent: &Agent, flags: &[&str]) -> String {
    let words: Vec<&str> = ["agent", "update", &agent.slug].iter().chain(flags).copied().collect();
    shell::copass(&words)
}

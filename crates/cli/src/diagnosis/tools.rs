//! Tools that a model did not get, and names that are none.

use std::collections::BTreeSet;

use copass_types::api::Agent;

use super::{Case, Finding, nearest::nearest, update};
use crate::{shell, trace::Trace};

/// A proposal with more names helps nobody.
const PROPOSED_MAX: usize = 12;

/// The line that lists what there is.
fn list_tools() -> String {
    shell::copass(&["agent", "tools"])
}

/// Sources that gave no tools. `resolved`: those that did, where that is known.
pub(super) fn skipped(
    skipped: &[(&str, Option<&str>)],
    resolved: Option<&[String]>,
    agent: Option<&Agent>,
) -> Vec<Finding> {
    let names: Vec<&str> = skipped.iter().map(|(name, _)| *name).collect();
    skipped
        .iter()
        .map(|(name, reason)| {
            let reason = reason.unwrap_or("no reason was given");
            let finding = Finding::new(format!("the tool source {name} was skipped: {reason}"));
            let Some(agent) = agent else {
                return finding.advice("set it up; what there is now:").command(list_tools());
            };
            let own = agent.tool_sources.as_deref();
            if own.is_some_and(|own| !own.iter().any(|source| source == name)) {
                return finding.advice(format!("{} does not ask for it any more", agent.slug));
            }
            if let Some(meant) = meant_source(name, reason, own) {
                let sources = replaced(own.unwrap_or_default(), name, Some(meant));
                return finding
                    .advice(format!("the closest is {meant}:"))
                    .command(update(agent, &["--tool-sources", &shell::json_list(&sources)]));
            }
            // Without all that are skipped now, so that one line mends them all.
            let left: Vec<&str> = match own {
                Some(own) => own
                    .iter()
                    .map(String::as_str)
                    .filter(|source| !names.contains(source))
                    .collect(),
                None => match resolved {
                    Some(resolved) => resolved.iter().map(String::as_str).collect(),
                    None => return finding.advice("set it up; what there is now:").command(list_tools()),
                },
            };
            if left.is_empty() {
                finding
                    .advice(
                        "set it up: it is the agent's only source, and without it there are no tools. What there is:",
                    )
                    .command(list_tools())
            } else {
                finding
                    .advice("set it up, or go without it:")
                    .command(update(agent, &["--tool-sources", &shell::json_list(&left)]))
            }
        })
        .collect()
}

/// The source that was meant, when the server says that it has none of the name, and which it has.
fn meant_source<'a>(name: &str, reason: &'a str, own: Option<&[String]>) -> Option<&'a str> {
    let (_, there) = reason.split_once("no tool source of that name; it has ")?;
    let is_new = |known: &&str| own.is_none_or(|own| !own.iter().any(|source| source == known));
    nearest(name, there.split(", ").filter(is_new))
}

/// The list with one entry replaced or left out, in its order and without repeats.
fn replaced<'a>(entries: &'a [String], entry: &str, by: Option<&'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    entries
        .iter()
        .filter_map(|present| if present == entry { by } else { Some(present.as_str()) })
        .filter(|name| seen.insert(*name))
        .collect()
}

/// Entries of the allowlist that match no tool.
pub(super) fn stale_allowlist(
    missing: &[String],
    there: &[&str],
    is_source_skipped: bool,
    agent: Option<&Agent>,
) -> Option<Finding> {
    if agent.is_some_and(has_no_sources) {
        // Then no entry can match, and the entries are not what is wrong.
        return None;
    }
    let present = agent.map(|agent| agent.tool_allowlist.as_slice());
    // Those that were mended since are no problem any more.
    let missing: Vec<&String> = missing
        .iter()
        .filter(|entry| present.is_none_or(|present| present.contains(entry)))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let mut words = Vec::new();
    let mut list: Vec<String> = present.unwrap_or_default().to_vec();
    let (mut is_changed, mut may_return) = (false, false);
    for entry in &missing {
        let meant = nearest(entry, there.iter().copied());
        match meant {
            Some(meant) => words.push(format!("{entry} (the closest is {meant})")),
            // Its source may be away only.
            None if is_source_skipped => {
                may_return = true;
                words.push((*entry).clone());
                continue;
            }
            None => words.push((*entry).clone()),
        }
        is_changed = true;
        list = replaced(&list, entry, meant).into_iter().map(str::to_owned).collect();
    }
    let finding = Finding::new(format!(
        "the allowlist names tools that are not there: {}",
        words.join(", ")
    ));
    let Some(agent) = agent else {
        return Some(finding.advice("what there is:").command(list_tools()));
    };
    Some(if !is_changed {
        finding.advice("they may belong to the source that was skipped, so fix that first")
    } else if list.is_empty() && !there.is_empty() && there.len() <= PROPOSED_MAX {
        finding
            .advice("taking the last entry out would allow every tool; keep those it needs of what there is:")
            .command(update(agent, &["--tool-allowlist", &shell::json_list(there)]))
    } else if list.is_empty() {
        finding
            .advice("taking the last entry out would allow every tool; choose from what there is:")
            .command(list_tools())
    } else {
        let advice = if may_return {
            "correct those that are wrong; the others may belong to the source that was skipped:"
        } else {
            "correct the allowlist:"
        };
        finding
            .advice(advice)
            .command(update(agent, &["--tool-allowlist", &shell::json_list(&list)]))
    })
}

/// The model got no tool although the agent wants some. `is_stale`: the allowlist has a finding of its own.
pub(super) fn none_offered(trace: &Trace, agent: Option<&Agent>, is_stale: bool) -> Option<Finding> {
    if !trace.tool_names_advertised.is_empty() {
        return None;
    }
    let finding = Finding::new("no tool was offered to the model, so it could only talk");
    let Some(agent) = agent else {
        // A run without an agent has the tools there are, or none on purpose.
        let is_wanted = !trace.sources_skipped.is_empty();
        return is_wanted.then(|| finding.advice("what there is:").command(list_tools()));
    };
    if !trace.allowlist_filtered_out.is_empty() {
        let there = &trace.allowlist_filtered_out;
        if agent.tool_allowlist.iter().any(|entry| there.contains(entry)) || agent.tool_allowlist.is_empty() {
            return Some(finding.advice("the allowlist kept every tool out, and was changed since; run it again"));
        }
        if is_stale {
            return Some(finding.advice("the allowlist keeps every tool out; correct it as said below"));
        }
        let advice = "the allowlist keeps every tool out; name those it needs, or allow all there are:";
        let finding = finding.advice(advice);
        return Some(if there.len() <= PROPOSED_MAX {
            finding.command(update(agent, &["--tool-allowlist", &shell::json_list(there)]))
        } else {
            finding
                .command(list_tools())
                .command(update(agent, &["--tool-allowlist", "[]"]))
        });
    }
    match agent.tool_sources.as_deref() {
        // Wanted so, unless the agent is told which tools it may use.
        Some([]) if agent.tool_allowlist.is_empty() => None,
        Some([]) => Some(no_sources(finding, agent)),
        _ => Some(
            finding
                .advice("no tool source gave one; what there is, and why not more:")
                .command(list_tools()),
        ),
    }
}

fn no_sources(finding: Finding, agent: &Agent) -> Finding {
    finding
        .advice("the agent has an allowlist and no tool source; give it the default ones:")
        .command(update(agent, &["--tool-sources", "default"]))
}

/// Calls of tools that were not offered.
pub(super) fn wrong_names(case: &Case<'_>, trace: &Trace) -> Vec<Finding> {
    let called: BTreeSet<&str> = case
        .tool_steps()
        .filter(|step| {
            step.error
                .as_deref()
                .is_some_and(|error| error.starts_with("unknown tool"))
        })
        .filter_map(|step| step.name.as_deref())
        .collect();
    called
        .into_iter()
        .map(|name| {
            let finding = Finding::new(format!("the model called {name}, which it was not offered"));
            if trace.allowlist_filtered_out.iter().any(|tool| tool == name) {
                return kept_out(finding, name, case.agent);
            }
            let offered = trace.tool_names_advertised.iter().map(String::as_str);
            let Some(meant) = nearest(name, offered) else {
                return finding
                    .advice("there is no such tool; what there is:")
                    .command(list_tools());
            };
            match case.agent {
                Some(agent) if agent.system_prompt.contains(name) => finding
                    .advice(format!(
                        "the closest is {meant}: write it in the prompt instead of {name}"
                    ))
                    .command(format!(
                        "{} > prompt.txt",
                        shell::copass(&["agent", "show", &agent.slug, "--prompt"])
                    ))
                    .command(update(agent, &["--prompt-file", "prompt.txt"])),
                _ => finding.advice(format!("the closest is {meant}; say so in what the agent is told")),
            }
        })
        .collect()
}

fn kept_out(finding: Finding, name: &str, agent: Option<&Agent>) -> Finding {
    match agent {
        Some(agent) if agent.tool_allowlist.iter().all(|entry| entry != name) && !agent.tool_allowlist.is_empty() => {
            let list: Vec<&str> = agent.tool_allowlist.iter().map(String::as_str).chain([name]).collect();
            finding
                .advice("the allowlist keeps it out; if the agent may use it, add it:")
                .command(update(agent, &["--tool-allowlist", &shell::json_list(&list)]))
        }
        _ => finding.advice("the allowlist kept it out"),
    }
}

/// Whether the agent is to have no tools.
pub(super) fn has_no_sources(agent: &Agent) -> bool {
    agent.tool_sources.as_ref().is_some_and(Vec::is_empty)
}

/// Whether a warning says what [`stale_allowlist`] says better.
pub(super) fn is_about_missing_entry(warning: &str) -> bool {
    warning.starts_with("the allowlist entry ") || warning.starts_with("the allowlist entries ")
}

/// A warning in the server's own words, with the line that helps where there is one. `is_stale`: the allowlist has a
/// finding of its own.
pub(super) fn of_warning(warning: &str, agent: &Agent, is_stale: bool) -> Finding {
    let finding = Finding::new(warning);
    if warning.contains("tool_sources is empty") {
        no_sources(finding, agent)
    } else if is_stale && warning.contains("the allowlist keeps every tool out") {
        finding.advice("correct the allowlist as said above")
    } else if warning.contains("no tool was offered") {
        finding.advice("what there is:").command(list_tools())
    } else {
        finding
    }
}

//! Tools that a model did not get, and names that are none.

use std::collections::BTreeSet;

use copass_types::api::Agent;

use super::{Case, Finding, nearest::nearest, update};
use crate::{shell, trace::Trace, wording};

/// A proposal with more names helps nobody.
const PROPOSED_MAX: usize = 12;
/// What servers warn of.
const NONE_OFFERED: &str = "no tool was offered";

/// The line that lists what there is.
fn list_tools() -> String {
    shell::copass(&["agent", "tools"])
}

/// Everything about the tools of a run, the cause before its effects.
pub(super) fn found(case: &Case<'_>, trace: &Trace) -> Vec<Finding> {
    let resolved = Some(trace.sources_resolved.as_slice());
    let mut findings = skipped(&trace.skipped(), resolved, case.agent);
    if had_no_source(case, trace) {
        // Then no name is right and no entry of the allowlist matches, and neither is what is wrong.
        findings.extend(case.agent.and_then(|agent| no_source(case, trace, agent)));
        return findings;
    }
    let there: Vec<&str> = trace.there().collect();
    let is_kept_out = |tool: &str| trace.allowlist_filtered_out.iter().any(|kept| kept == tool);
    let present = case.agent.map(|agent| agent.tool_allowlist.as_slice());
    // Those that were let in since are no problem of the list any more.
    let is_still_out = |tool: &str| {
        is_kept_out(tool) && present.is_none_or(|list| !list.is_empty() && list.iter().all(|entry| entry != tool))
    };
    let (kept_out, unknown): (Vec<&str>, Vec<&str>) = wrong_calls(case).into_iter().partition(|name| is_kept_out(name));
    let (still_out, let_in): (Vec<&str>, Vec<&str>) = kept_out.into_iter().partition(|name| is_still_out(name));
    let unknown: Vec<Unknown<'_>> = unknown
        .into_iter()
        .map(|name| Unknown {
            name,
            meant: nearest(name, there.iter().copied()),
        })
        .collect();
    // All that is to be let in, because each line replaces the whole list.
    let mut wanted = still_out.clone();
    for meant in unknown.iter().filter_map(|unknown| unknown.meant) {
        if is_still_out(meant) && !wanted.contains(&meant) {
            wanted.push(meant);
        }
    }
    let stale = stale_allowlist(
        &trace.allowlist_missing_entries,
        &there,
        &wanted,
        !trace.sources_skipped.is_empty(),
        case.agent,
    );
    let none = none_offered(trace, case.agent, stale.is_some());
    let mut is_listed = [&none, &stale]
        .into_iter()
        .flatten()
        .any(|finding| !finding.commands.is_empty());
    let said = stale.as_ref().map_or_else(Vec::new, |stale| stale.commands.clone());
    findings.extend(none);
    findings.extend(stale);
    findings.extend(kept_out_calls(&still_out, &wanted, is_listed, case.agent));
    is_listed |= !still_out.is_empty();
    if !let_in.is_empty() {
        findings.push(case.again(not_offered(&let_in), "the allowlist kept it out, and does so no more; "));
    }
    for unknown in &unknown {
        let is_out = unknown.meant.is_some_and(is_still_out);
        let list = (is_out && !is_listed).then_some(wanted.as_slice());
        is_listed |= is_out;
        findings.push(match unknown.meant {
            Some(meant) if is_out => unknown.kept_out(meant, list, &said, case.agent),
            Some(meant) => unknown.misspelt(meant, &said, case.agent),
            None => unknown.stranger(&trace.sources_skipped),
        });
    }
    findings
}

/// Sources that gave no tools. `resolved`: those that did, where that is known.
///
/// Typed in their order the lines do not undo each other: first names that are mere slips are mended, then the agent
/// goes without the sources that are really away.
pub(super) fn skipped(
    skipped: &[(&str, Option<&str>)],
    resolved: Option<&[String]>,
    agent: Option<&Agent>,
) -> Vec<Finding> {
    let own = agent.and_then(|agent| agent.tool_sources.as_deref());
    let meant = |name: &str| {
        let (_, reason) = skipped.iter().find(|(known, _)| *known == name)?;
        meant_source(name, (*reason)?, own)
    };
    let is_own = |name: &str| own.is_none_or(|own| own.iter().any(|source| source == name));
    let (slips, away): (Vec<_>, Vec<_>) = skipped
        .iter()
        .partition(|(name, _)| own.is_some() && is_own(name) && meant(name).is_some());
    let mended = corrected(own.unwrap_or_default(), |source| Some(meant(source).unwrap_or(source)));
    // Without all that are away now, so that one line mends them all.
    let left: Option<Vec<&str>> = match own {
        Some(_) => Some(
            mended
                .iter()
                .copied()
                .filter(|source| away.iter().all(|(name, _)| name != source))
                .collect(),
        ),
        None => resolved.map(|resolved| resolved.iter().map(String::as_str).collect()),
    };
    let said = |(name, reason): (&str, Option<&str>)| {
        let reason = reason.unwrap_or("no reason was given");
        Finding::new(format!("the tool source {name} was skipped: {reason}"))
    };
    let mut findings = Vec::new();
    for source in slips {
        if let (Some(agent), Some(meant)) = (agent, meant(source.0)) {
            findings.push(
                said(source)
                    .advice(format!("the closest is {meant}:"))
                    .command(update(agent, &["--tool-sources", &shell::json_list(&mended)])),
            );
        }
    }
    for source in away {
        let finding = said(source);
        findings.push(match (agent, &left) {
            (Some(agent), _) if !is_own(source.0) => {
                finding.advice(format!("{} does not ask for it any more", agent.slug))
            }
            (Some(agent), Some(left)) if left.is_empty() => match own {
                // Without any it would have an empty list, and that means no tools.
                Some(own) => {
                    let whole = if own.len() == 1 {
                        "it is the agent's only source"
                    } else {
                        "none of the agent's sources gave tools"
                    };
                    let set_up = if can_be_set_up(source.1) { "set it up, or " } else { "" };
                    finding
                        .advice(format!("{whole}: {set_up}give the agent the default ones:"))
                        .command(default_sources(agent))
                }
                None => finding
                    .advice("set it up: no other default source gave tools. What there is:")
                    .command(list_tools()),
            },
            (Some(agent), Some(left)) => finding
                .advice(if can_be_set_up(source.1) {
                    "set it up, or go without it:"
                } else {
                    "go without it:"
                })
                .command(update(agent, &["--tool-sources", &shell::json_list(left)])),
            _ => finding.advice("set it up; what there is now:").command(list_tools()),
        });
    }
    findings
}

/// Whether a source that was skipped can ever give an agent of this server tools.
fn can_be_set_up(reason: Option<&str>) -> bool {
    reason.is_none_or(|reason| {
        !reason.starts_with("only the Concierge has it") && !reason.contains("no tool source of that name")
    })
}

/// The source that was meant, when the server says that it has none of the name, and which it has.
fn meant_source<'a>(name: &str, reason: &'a str, own: Option<&[String]>) -> Option<&'a str> {
    let (_, there) = reason.split_once("no tool source of that name; it has ")?;
    let is_new = |known: &&str| own.is_none_or(|own| !own.iter().any(|source| source == known));
    nearest(name, there.split(", ").filter(is_new))
}

/// The list with what each entry becomes, `None` for one that is left out; in its order and without repeats.
fn corrected<'a>(entries: &'a [String], becomes: impl Fn(&'a str) -> Option<&'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    entries
        .iter()
        .filter_map(|entry| becomes(entry))
        .filter(|name| seen.insert(*name))
        .collect()
}

/// Entries of the allowlist that match no tool. `wanted`: tools that it keeps out and that the model called or meant; they
/// are part of the same line, because each line replaces the whole list.
pub(super) fn stale_allowlist(
    missing: &[String],
    there: &[&str],
    wanted: &[&str],
    is_source_skipped: bool,
    agent: Option<&Agent>,
) -> Option<Finding> {
    if agent.is_some_and(has_no_sources) {
        // Then no entry can match, and the entries are not what is wrong.
        return None;
    }
    let present = agent.map(|agent| agent.tool_allowlist.as_slice());
    // Those that were mended since are no problem any more.
    let missing: Vec<&str> = missing
        .iter()
        .filter(|entry| present.is_none_or(|present| present.contains(entry)))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return None;
    }
    let meant = |entry: &str| nearest(entry, there.iter().copied());
    let words: Vec<String> = missing
        .iter()
        .map(|entry| match meant(entry) {
            Some(meant) => format!("{entry} (the closest is {meant})"),
            None => (*entry).to_owned(),
        })
        .collect();
    let finding = Finding::new(format!(
        "the allowlist names tools that are not there: {}",
        words.join(", ")
    ));
    let Some(agent) = agent else {
        return Some(finding.advice("what there is:").command(list_tools()));
    };
    // The source of a name that is like no other may be away only.
    let may_return = is_source_skipped && missing.iter().any(|entry| meant(entry).is_none());
    if may_return && missing.iter().all(|entry| meant(entry).is_none()) {
        return Some(finding.advice("they may belong to the source that was skipped, so fix that first"));
    }
    let mut list = corrected(&agent.tool_allowlist, |entry| {
        if missing.contains(&entry) {
            meant(entry).or_else(|| is_source_skipped.then_some(entry))
        } else {
            Some(entry)
        }
    });
    let added: Vec<&str> = wanted.iter().copied().filter(|name| !list.contains(name)).collect();
    list.extend(&added);
    // A prompt with the wrong name would make the model call it again.
    let renames: Vec<String> = missing
        .iter()
        .filter_map(|entry| rename(agent, entry, meant(entry)?))
        .collect();
    Some(if list.is_empty() && !there.is_empty() && there.len() <= PROPOSED_MAX {
        finding
            .advice("taking the last entry out would allow every tool; keep those it needs of what there is:")
            .command(update(agent, &["--tool-allowlist", &shell::json_list(there)]))
    } else if list.is_empty() {
        finding
            .advice("taking the last entry out would allow every tool; choose from what there is:")
            .command(list_tools())
    } else {
        let mut advice = if may_return {
            "correct those that are wrong; the others may belong to the source that was skipped".to_owned()
        } else {
            "correct the allowlist".to_owned()
        };
        if !added.is_empty() {
            advice.push_str(&format!(
                "; {} was asked for and is added, so take it out if the agent may not use it",
                added.join(", ")
            ));
        }
        if !renames.is_empty() {
            advice.push_str("; the prompt has a wrong name too, so correct it as well");
        }
        let finding = finding
            .advice(format!("{advice}:"))
            .command(update(agent, &["--tool-allowlist", &shell::json_list(&list)]));
        renames.into_iter().fold(finding, Finding::command)
    })
}

/// The model got no tool although the agent wants some. `is_stale`: the allowlist has a finding of its own.
fn none_offered(trace: &Trace, agent: Option<&Agent>, is_stale: bool) -> Option<Finding> {
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
    if has_no_sources(agent) && agent.tool_allowlist.is_empty() {
        // Wanted so by now.
        return None;
    }
    if trace.sources_resolved.is_empty() && !trace.sources_skipped.is_empty() {
        return Some(finding.advice("every tool source was skipped, as said above"));
    }
    Some(
        finding
            .advice("no tool source gave one; what there is, and why not more:")
            .command(list_tools()),
    )
}

/// Whether the agent had an empty list of tool sources when the run began. The agent may have been changed since.
fn had_no_source(case: &Case<'_>, trace: &Trace) -> bool {
    let Some(agent) = case.agent else { return false };
    let was_asked =
        !trace.sources.is_empty() || !trace.sources_resolved.is_empty() || !trace.sources_skipped.is_empty();
    if was_asked || trace.there().next().is_some() {
        return false;
    }
    let run = &case.detail.run;
    if agent.version == run.agent_version {
        return has_no_sources(agent);
    }
    // A server that has no tool source at all looks alike, but says that no tool was offered and not why.
    let is_unmeant =
        |warning: &String| warning.contains(NONE_OFFERED) && !warning.contains("empty list of tool sources");
    !run.warnings.iter().any(is_unmeant)
}

/// The run was without any tool source, although the agent or the model counted on tools.
fn no_source(case: &Case<'_>, trace: &Trace, agent: &Agent) -> Option<Finding> {
    let called = wrong_calls(case);
    let run_version = case.detail.run.agent_version;
    let had_allowlist =
        !trace.allowlist_missing_entries.is_empty() || agent.version == run_version && !agent.tool_allowlist.is_empty();
    let finding = if !called.is_empty() {
        Finding::new(format!(
            "the model called {}, and no tool was offered to it",
            called.join(", ")
        ))
    } else if had_allowlist {
        Finding::new("no tool was offered to the model, so it could only talk")
    } else {
        return None;
    };
    Some(if has_no_sources(agent) {
        switched_on(finding, agent)
    } else {
        case.again(
            finding,
            &format!(
                "no tool source was switched on for the agent at version {run_version}, which the run had; this was \
                 changed since, so "
            ),
        )
    })
}

/// The line that gives an agent without tool sources the default ones.
fn switched_on(finding: Finding, agent: &Agent) -> Finding {
    finding
        .advice("no tool source is switched on for the agent; give it the default ones:")
        .command(default_sources(agent))
}

fn default_sources(agent: &Agent) -> String {
    update(agent, &["--tool-sources", "default"])
}

/// Names that the model called and was not offered, each once.
fn wrong_calls<'a>(case: &Case<'a>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    case.tool_steps()
        .filter(|step| {
            step.error
                .as_deref()
                .is_some_and(|error| error.starts_with("unknown tool"))
        })
        .filter_map(|step| step.name.as_deref())
        .filter(|name| seen.insert(*name))
        .collect()
}

fn not_offered(names: &[&str]) -> Finding {
    Finding::new(format!(
        "the model called {}, which it was not offered",
        names.join(", ")
    ))
}

/// Calls of tools that the allowlist keeps out. `wanted`: all that is to be let in. `is_listed`: a finding above has the
/// whole list.
fn kept_out_calls(names: &[&str], wanted: &[&str], is_listed: bool, agent: Option<&Agent>) -> Option<Finding> {
    if names.is_empty() {
        return None;
    }
    let finding = not_offered(names);
    Some(match agent {
        None => finding.advice("the allowlist kept it out"),
        Some(_) if is_listed => finding.advice("the allowlist keeps it out; correct it as said above"),
        Some(agent) => finding
            .advice("the allowlist keeps it out; if the agent may use it, add it:")
            .command(let_in_all(agent, wanted)),
    })
}

/// The line that adds tools to the allowlist.
fn let_in_all(agent: &Agent, names: &[&str]) -> String {
    let present = agent.tool_allowlist.iter().map(String::as_str);
    let list: Vec<&str> = present.chain(names.iter().copied()).collect();
    update(agent, &["--tool-allowlist", &shell::json_list(&list)])
}

/// The line that writes the right name into the prompt, where the wrong one stands in it.
fn rename(agent: &Agent, name: &str, meant: &str) -> Option<String> {
    wording::replaced(&agent.system_prompt, name, meant)?;
    Some(update(agent, &["--prompt-replace", name, meant]))
}

/// A call of a name that no tool has.
struct Unknown<'a> {
    name: &'a str,
    /// The closest of the tools there are, offered or not.
    meant: Option<&'a str>,
}

impl Unknown<'_> {
    /// The closest was offered. `said`: the lines of the findings above.
    fn misspelt(&self, meant: &str, said: &[String], agent: Option<&Agent>) -> Finding {
        let finding = not_offered(&[self.name]);
        match agent.and_then(|agent| rename(agent, self.name, meant)) {
            Some(line) if said.contains(&line) => {
                finding.advice(format!("the closest is {meant}; correct the prompt as said above"))
            }
            Some(line) => finding
                .advice(format!(
                    "the closest is {meant}: write it in the prompt instead of {}",
                    self.name
                ))
                .command(line),
            None => finding.advice(format!("the closest is {meant}; say so in what the agent is told")),
        }
    }

    /// The closest is kept out by the allowlist. `list`: what to let in, unless a finding above has the line for it.
    fn kept_out(&self, meant: &str, list: Option<&[&str]>, said: &[String], agent: Option<&Agent>) -> Finding {
        let finding = not_offered(&[self.name]);
        let Some(agent) = agent else {
            return finding.advice(format!("the closest is {meant}, which the allowlist kept out"));
        };
        let mut advice = format!("the closest is {meant}, which the allowlist keeps out; ");
        let mut lines = Vec::new();
        match list {
            Some(list) => {
                advice.push_str("if the agent may use it, add it");
                lines.push(let_in_all(agent, list));
            }
            None => advice.push_str("correct it as said above"),
        }
        match rename(agent, self.name, meant) {
            // Then the list is said there too, and the advice sends there for both.
            Some(line) if said.contains(&line) => {}
            Some(line) => {
                advice.push_str(&format!(", and write it in the prompt instead of {}", self.name));
                lines.push(line);
            }
            None => {}
        }
        if !lines.is_empty() {
            advice.push(':');
        }
        lines.into_iter().fold(finding.advice(advice), Finding::command)
    }

    /// No tool has a name like it. The tools of a source that was skipped are not known.
    fn stranger(&self, skipped: &[String]) -> Finding {
        let finding = not_offered(&[self.name]);
        match skipped {
            [] => finding
                .advice("there is no such tool; what there is:")
                .command(list_tools()),
            [source] => finding.advice(format!(
                "no tool there is now has that name; it may belong to the source {source}, which was skipped, so fix that \
                 first, as said above"
            )),
            sources => finding.advice(format!(
                "no tool there is now has that name; it may belong to one of the sources that were skipped ({}), so fix \
                 those first, as said above",
                sources.join(", ")
            )),
        }
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
/// finding of its own. `is_every_source_skipped`: each source has one.
pub(super) fn of_warning(warning: &str, agent: &Agent, is_stale: bool, is_every_source_skipped: bool) -> Finding {
    let finding = Finding::new(warning);
    if warning.contains("tool_sources is empty") {
        switched_on(finding, agent)
    } else if is_stale && warning.contains("the allowlist keeps every tool out") {
        finding.advice("correct the allowlist as said above")
    } else if is_every_source_skipped && warning.contains(NONE_OFFERED) {
        finding.advice("every tool source was skipped, as said above")
    } else if warning.contains(NONE_OFFERED) {
        finding.advice("what there is:").command(list_tools())
    } else {
        finding
    }
}

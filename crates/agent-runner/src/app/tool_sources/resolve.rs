//! Resolution: which tools a run gets, and why not others (`rest.md` 12.B, `tool_resolution_trace`).

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use copass_llm::ToolSpec;
use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    MANAGEMENT_SOURCE, ResolvedTool, Seeker, Skipped, ToolSource,
    cache::{Answer, Answers, Freshness, Key},
    check,
};

/// Said of runs that an invoke key without a holder started (`gaps.md` G42).
const NO_HOLDER: &str = "the invoke key has no holder, so the run acts for nobody and has nobody's integrations; mint one \
                         with a holder to give it some";
/// Sources asked at once for one run.
const PARALLEL_SOURCES: usize = 16;
/// More tools than any model takes in one request.
const MAX_TOOLS: usize = 2_000;
/// Allowlist entries that warnings name, and how much of each where there are more; the trace has them all.
const MAX_NAMED: usize = 10;
const MAX_NAMED_CHARS: usize = 64;

/// How one source did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceReport {
    pub(crate) name: String,
    /// `None` where the source was resolved.
    pub(crate) skipped: Option<String>,
    pub(crate) tool_count: usize,
    pub(crate) duration_ms: u64,
}

/// The tools of one run and the story of how they came together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolution {
    /// In the order of the sources and their lists.
    pub(crate) tools: Vec<Arc<ResolvedTool>>,
    by_name: HashMap<String, usize>,
    pub(crate) sources: Vec<SourceReport>,
    /// Tools that the allowlist kept out.
    pub(crate) filtered_out: Vec<String>,
    /// Allowlist entries that match no tool.
    pub(crate) missing_entries: Vec<String>,
    /// What the operator should know, as sentences.
    pub(crate) warnings: Vec<String>,
    duration_ms: u64,
}

impl Resolution {
    /// The tools of one source that were decided elsewhere: the Concierge's.
    pub(crate) fn of_source(source: &str, tools: Vec<Arc<ResolvedTool>>, began: Instant) -> Self {
        let report = SourceReport {
            name: source.to_owned(),
            skipped: None,
            tool_count: tools.len(),
            duration_ms: millis(began),
        };
        let mut resolution = Self {
            tools,
            sources: vec![report],
            ..Self::default()
        };
        resolution.complete(&[], true, began);
        resolution
    }

    /// What the model gets.
    pub(crate) fn specs(&self) -> Vec<ToolSpec> {
        self.tools.iter().map(|tool| tool.spec.clone()).collect()
    }

    /// The tool that was offered under the name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ResolvedTool>> {
        self.by_name.get(name).and_then(|index| self.tools.get(*index))
    }

    /// The tool-resolution trace as it is stored and shown.
    pub(crate) fn trace(&self) -> Value {
        let names = |is_resolved: bool| -> Vec<&str> {
            self.sources
                .iter()
                .filter(|source| source.skipped.is_none() == is_resolved)
                .map(|source| source.name.as_str())
                .collect()
        };
        let advertised: Vec<_> = self.tools.iter().map(|tool| tool.spec.name.as_str()).collect();
        let sources: Vec<Value> = self
            .sources
            .iter()
            .map(|source| {
                json!({
                    "name": source.name,
                    "state": if source.skipped.is_none() { "resolved" } else { "skipped" },
                    "reason": source.skipped,
                    "tool_count": source.tool_count,
                    "duration_ms": source.duration_ms,
                })
            })
            .collect();
        json!({
            "sources_resolved": names(true),
            "sources_skipped": names(false),
            "tool_names_advertised": advertised,
            "allowlist_filtered_out": self.filtered_out,
            "allowlist_missing_entries": self.missing_entries,
            "duration_ms": self.duration_ms,
            "sources": sources,
            "warnings": self.warnings,
        })
    }

    fn complete(&mut self, allowlist: &[String], wants_tools: bool, began: Instant) {
        if !allowlist.is_empty() {
            let allowed: HashSet<&str> = allowlist.iter().map(String::as_str).collect();
            let there: HashSet<String> = self.tools.iter().map(|tool| tool.spec.name.clone()).collect();
            let (kept, out): (Vec<_>, Vec<_>) = std::mem::take(&mut self.tools)
                .into_iter()
                .partition(|tool| allowed.contains(tool.spec.name.as_str()));
            self.tools = kept;
            self.filtered_out = out.into_iter().map(|tool| tool.spec.name.clone()).collect();
            let mut seen = HashSet::new();
            self.missing_entries = allowlist
                .iter()
                .filter(|entry| !there.contains(*entry) && seen.insert(entry.as_str()))
                .cloned()
                .collect();
        }
        for source in &self.sources {
            if let Some(reason) = &source.skipped {
                self.warnings
                    .push(format!("the tool source {} was skipped: {reason}", source.name));
            }
        }
        self.warnings.extend(missing_warnings(&self.missing_entries));
        // Without sources and without an allowlist it is meant so.
        if self.tools.is_empty() && (wants_tools || !allowlist.is_empty()) {
            let why = if !wants_tools {
                ", because the agent has an empty list of tool sources"
            } else if self.filtered_out.is_empty() {
                ""
            } else {
                ": the allowlist keeps every tool out"
            };
            self.warnings
                .push(format!("no tool was offered to the model{why}; it can only talk"));
        }
        self.by_name = self
            .tools
            .iter()
            .enumerate()
            .map(|(index, tool)| (tool.spec.name.clone(), index))
            .collect();
        self.duration_ms = millis(began);
    }
}

/// A sentence for each entry that matches no tool, or one about many.
fn missing_warnings(entries: &[String]) -> Vec<String> {
    if entries.len() <= MAX_NAMED {
        return entries
            .iter()
            .map(|entry| format!("the allowlist entry {entry} matches no tool there is now"))
            .collect();
    }
    let named: Vec<String> = entries[..MAX_NAMED].iter().map(|entry| shortened(entry)).collect();
    let more = entries.len() - MAX_NAMED;
    let named = named.join(", ");
    vec![format!(
        "the allowlist entries {named} and {more} more: each matches no tool there is now"
    )]
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAMED_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Finds the tools of agents.
pub(crate) struct Resolver {
    sources: Vec<(Arc<str>, Arc<dyn ToolSource>)>,
    answers: Answers,
    /// How long one source may take.
    patience: Duration,
}

impl Resolver {
    pub(crate) fn new(sources: Vec<Arc<dyn ToolSource>>, patience: Duration) -> Self {
        Self::with_freshness(sources, patience, Freshness::default())
    }

    fn with_freshness(sources: Vec<Arc<dyn ToolSource>>, patience: Duration, freshness: Freshness) -> Self {
        Self {
            sources: sources
                .into_iter()
                .map(|source| (Arc::from(source.name()), source))
                .collect(),
            answers: Answers::new(freshness),
            patience,
        }
    }

    /// The tools for an agent with these sources (`None`: the default set, empty: no tools) and this allowlist (empty:
    /// every tool). Never fails; what went wrong is in the reports.
    pub(crate) async fn resolve(
        &self,
        seeker: &Seeker,
        sources: Option<&[String]>,
        allowlist: &[String],
    ) -> Resolution {
        let began = Instant::now();
        let wanted: Vec<Arc<str>> = match sources {
            None => self
                .sources
                .iter()
                .filter(|(_, source)| source.is_default())
                .map(|(name, _)| name.clone())
                .collect(),
            Some(names) => {
                let mut seen = HashSet::new();
                names
                    .iter()
                    .filter(|name| seen.insert(name.as_str()))
                    .map(|name| Arc::from(name.as_str()))
                    .collect()
            }
        };
        let answers: Vec<(Arc<str>, Answer, u64)> = stream::iter(wanted)
            .map(|name| async move {
                let began = Instant::now();
                let answer = self.ask(&name, seeker).await;
                (name, answer, millis(began))
            })
            .buffered(PARALLEL_SOURCES)
            .collect()
            .await;
        let mut resolution = Resolution::default();
        let mut origins: HashMap<String, Arc<str>> = HashMap::new();
        for (name, answer, duration_ms) in answers {
            let mut report = SourceReport {
                name: name.to_string(),
                skipped: None,
                tool_count: 0,
                duration_ms,
            };
            match answer {
                Err(Skipped(reason)) => report.skipped = Some(reason),
                Ok(tools) => {
                    report.tool_count = tools.len();
                    for tool in tools.iter() {
                        resolution.take(tool, &mut origins);
                    }
                }
            }
            resolution.sources.push(report);
        }
        if seeker.identity.is_none() {
            resolution.warnings.push(NO_HOLDER.to_owned());
        }
        let wants_tools = sources.is_none_or(|names| !names.is_empty());
        resolution.complete(allowlist, wants_tools, began);
        resolution
    }

    async fn ask(&self, name: &Arc<str>, seeker: &Seeker) -> Answer {
        if name.as_ref() == MANAGEMENT_SOURCE {
            return Err(Skipped(
                "only the Concierge has it; take it out of tool_sources".to_owned(),
            ));
        }
        let Some((_, source)) = self.sources.iter().find(|(known, _)| known == name) else {
            let known: Vec<&str> = self.sources.iter().map(|(name, _)| name.as_ref()).collect();
            return Err(Skipped(match known.as_slice() {
                [] => "this server has no tool source of that name, nor any other yet".to_owned(),
                known => format!(
                    "this server has no tool source of that name; it has {}",
                    known.join(", ")
                ),
            }));
        };
        let ask = async {
            let work = async {
                let built = source.build(seeker).await?;
                check::check(name, built).map(Arc::from)
            };
            // A panic of a source costs its place only.
            let work = AssertUnwindSafe(timeout(self.patience, work)).catch_unwind();
            match work.await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(Skipped(format!(
                    "it did not tell its tools within {} s",
                    self.patience.as_secs_f64()
                ))),
                Err(panic) => {
                    let panic = copass_runtime::tasks::panic_text(panic.as_ref());
                    tracing::error!(source = %name, panic, "tool source panicked");
                    Err(Skipped(
                        "it failed inside this server; the log has the cause".to_owned(),
                    ))
                }
            }
        };
        self.answers.get(Key::new(name.clone(), seeker), ask).await
    }
}

impl Resolution {
    /// Adds a tool; of two with one name the first stays, because a model could not tell them apart.
    fn take(&mut self, tool: &Arc<ResolvedTool>, origins: &mut HashMap<String, Arc<str>>) {
        let name = &tool.spec.name;
        if let Some(first) = origins.get(name) {
            self.warnings.push(format!(
                "the tool {name} of {} is left out: {first} has one of that name",
                tool.source
            ));
        } else if self.tools.len() >= MAX_TOOLS {
            if self.tools.len() == MAX_TOOLS && !self.warnings.iter().any(|warning| warning.starts_with("more than")) {
                self.warnings
                    .push(format!("more than {MAX_TOOLS} tools were found; the rest is left out"));
            }
        } else {
            origins.insert(name.clone(), tool.source.clone());
            self.tools.push(tool.clone());
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.sources.iter().map(|(name, _)| name))
            .finish()
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use copass_runtime::CallContext;
    use copass_test_support::{TestSandbox, eventually};
    use serde_json::Map;

    use super::*;
    use crate::tool_sources::{Built, Call, ToolAnswer, ToolCaller, ToolDraft};

    struct Nobody;

    #[async_trait]
    impl ToolCaller for Nobody {
        async fn call(&self, _: Call<'_>) -> copass_errors::Result<ToolAnswer> {
            Ok(ToolAnswer {
                result: Map::new(),
                error: None,
            })
        }
    }

    /// Has a reason first and tools then.
    struct Mended(AtomicUsize);

    #[async_trait]
    impl ToolSource for Mended {
        fn name(&self) -> &str {
            "mended"
        }

        async fn build(&self, _: &Seeker) -> Result<Built, Skipped> {
            if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(Skipped("not yet".to_owned()));
            }
            let tool = ToolDraft {
                name: "look".to_owned(),
                app_slug: "app".to_owned(),
                description: "looks".to_owned(),
                input_schema: json!({"type": "object"}),
                is_read_only: true,
            };
            Ok(Built {
                tools: vec![tool],
                caller: Arc::new(Nobody),
            })
        }
    }

    fn seeker(sandbox: &TestSandbox) -> Seeker {
        Seeker {
            context: CallContext::service("test"),
            sandbox_id: sandbox.id.clone(),
            owner: sandbox.owner_user_id.clone(),
            identity: None,
            end_user_id: None,
        }
    }

    #[tokio::test]
    async fn a_reason_is_asked_again_soon_and_tools_are_kept() {
        let source = Arc::new(Mended(AtomicUsize::new(0)));
        let freshness = Freshness {
            tools: Duration::from_secs(3600),
            reason: Duration::from_millis(200),
        };
        let resolver = Resolver::with_freshness(vec![source.clone()], Duration::from_secs(5), freshness);
        let sandbox = TestSandbox::new();
        let ask = async || resolver.resolve(&seeker(&sandbox), None, &[]).await;
        let together = futures::future::join_all((0..50).map(|_| ask())).await;
        assert!(
            together
                .iter()
                .all(|resolution| resolution.sources[0].skipped.is_some())
        );
        assert_eq!(source.0.load(Ordering::SeqCst), 1, "many that ask at once ask once");
        eventually(Duration::from_secs(5), async || ask().await.tools.len() == 1).await;
        assert_eq!(source.0.load(Ordering::SeqCst), 2);
        assert_eq!(ask().await.tools.len(), 1);
        assert_eq!(source.0.load(Ordering::SeqCst), 2, "tools are kept");
        // What one person has is not another's to see.
        let other = seeker(&TestSandbox::new());
        resolver.resolve(&other, None, &[]).await;
        assert_eq!(source.0.load(Ordering::SeqCst), 3);
    }
}

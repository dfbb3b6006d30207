//! A tool host over a world that fits on one page.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::planner::Planner;
use crate::port::{Message, Request, StreamEvent, ToolCall, ToolSpec};

static PLANNER: LazyLock<Planner> = LazyLock::new(|| Planner::concierge().unwrap());

pub(super) const READ_TOOLS: [&str; 13] = [
    "list_sandboxes",
    "list_sources",
    "get_source",
    "list_agents",
    "get_agent",
    "list_triggers",
    "list_runs",
    "get_run_trace",
    "list_apps",
    "list_trigger_components",
    "list_connected_accounts",
    "list_api_keys",
    "list_agent_tools",
];

/// The changing tools that there are so far.
pub(super) const CHANGING_TOOLS: [&str; 8] = [
    "create_agent",
    "update_agent_prompt",
    "update_agent_tools",
    "update_agent_model_settings",
    "update_agent_tool_sources",
    "test_agent",
    "mint_agent_invoke_key",
    "mint_agent_delegate_key",
];

pub(super) fn now() -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// What exists, and who asks.
#[derive(Clone)]
pub(super) struct World {
    pub(super) sandboxes: Value,
    pub(super) agents: Value,
    pub(super) sources: Value,
    pub(super) keys: Value,
    pub(super) prompt: String,
    /// What every agent may use, and from where.
    pub(super) allowlist: Value,
    pub(super) tool_sources: Value,
    pub(super) settings: Value,
    /// The secret of a new key.
    pub(super) minted: &'static str,
    /// What agents could use.
    pub(super) agent_tools: Value,
    /// Of every run.
    pub(super) trace: Value,
    pub(super) warnings: Value,
    pub(super) tools: Vec<String>,
    pub(super) failing: Vec<&'static str>,
    pub(super) messages: Vec<Message>,
    pub(super) calls: Vec<ToolCall>,
}

impl World {
    pub(super) fn editor() -> Self {
        let agent = |id: &str, slug: &str, name: &str, status: &str| json!({"agent_id": id, "slug": slug, "name": name, "status": status, "version": 3, "description": null});
        Self {
            sandboxes: json!([
                {"sandbox_id": "sb_main", "name": "Acme", "tier": "pro", "status": "active", "created_at": "2026-01-01T00:00:00Z"},
                {"sandbox_id": "sb_old", "name": "Playground", "tier": "free", "status": "suspended", "created_at": null},
            ]),
            agents: json!([
                agent("ag_1", "support", "Support", "active"),
                agent("ag_2", "issue-triage", "Triage", "active"),
                agent("ag_3", "intake", "Intake", "archived"),
            ]),
            sources: json!([
                {"data_source_id": "ds_gh", "name": "GitHub issues", "provider": "github", "status": "active", "ingestion_mode": "realtime", "last_sync_at": "2026-03-01T11:00:00Z"},
                {"data_source_id": "ds_sl", "name": "slack", "provider": "pipedream", "status": "error", "ingestion_mode": "realtime", "last_sync_at": null},
            ]),
            keys: json!([
                {"api_key_id": "ak_1", "label": "laptop", "key_prefix": "olk_ab12", "kind": "general", "agent_id": null, "expires_at": "2026-03-08T12:00:00Z", "revoked_at": null},
                {"api_key_id": "ak_2", "label": "ci", "key_prefix": "olk_cd34", "kind": "general", "agent_id": null, "expires_at": null, "revoked_at": null},
            ]),
            prompt: "You answer support questions.".to_owned(),
            allowlist: json!(["search"]),
            tool_sources: Value::Null,
            minted: "olk_TheOneAndOnlyTime",
            settings: json!({"backend": "anthropic", "model": "claude-sonnet-4-6", "max_turns": 15}),
            agent_tools: json!([
                {"name": "search", "app_slug": "copass", "description": null, "source": "copass_retrieval"},
                {"name": "discover", "app_slug": "copass", "description": "Finds.", "source": "copass_retrieval"},
                {"name": "pd_linear_search_issues", "app_slug": "linear", "description": null, "source": "pipedream"},
            ]),
            trace: json!({"sources_resolved": [], "sources_skipped": ["slack: needs_reauth"], "tool_names_advertised": [],
                "allowlist_filtered_out": [], "allowlist_missing_entries": ["pd_linear_serach"], "duration_ms": 3}),
            warnings: json!([]),
            tools: READ_TOOLS
                .iter()
                .chain(&CHANGING_TOOLS)
                .map(|name| (*name).to_owned())
                .collect(),
            failing: Vec::new(),
            messages: Vec::new(),
            calls: Vec::new(),
        }
    }

    pub(super) fn viewer() -> Self {
        Self {
            tools: READ_TOOLS.iter().map(|name| (*name).to_owned()).collect(),
            ..Self::editor()
        }
    }

    pub(super) fn empty() -> Self {
        let none = json!([]);
        Self {
            sandboxes: none.clone(),
            agents: none.clone(),
            sources: none.clone(),
            keys: none,
            ..Self::editor()
        }
    }

    pub(super) fn request(&self) -> Request {
        let tools = self.tools.iter().map(|name| ToolSpec {
            name: name.clone(),
            description: String::new(),
            input_schema: json!({"type": "object"}),
            read_only: READ_TOOLS.contains(&name.as_str()),
        });
        Request {
            messages: self.messages.clone(),
            tools: tools.collect(),
            now: Some(now()),
            ..Request::default()
        }
    }

    /// One step of the planner: its text and its calls.
    pub(super) fn step(&self) -> (String, Vec<ToolCall>) {
        let mut text = String::new();
        let mut calls = Vec::new();
        let events = PLANNER.step(&self.request());
        let finishes = events
            .iter()
            .filter(|event| matches!(event, StreamEvent::Finish { .. }))
            .count();
        assert!(finishes == 1 && matches!(events.last(), Some(StreamEvent::Finish { .. })));
        for event in events {
            match event {
                StreamEvent::TextDelta(delta) => text.push_str(&delta),
                StreamEvent::ToolCall(call) => calls.push(call),
                StreamEvent::Usage(_) => {}
                StreamEvent::Finish { stop_reason, .. } => {
                    assert_eq!(
                        stop_reason.as_str(),
                        if calls.is_empty() { "end_turn" } else { "tool_use" }
                    );
                }
            }
        }
        (text, calls)
    }

    /// Says something and lets the tools answer until the planner does.
    pub(super) fn say(&mut self, text: &str) -> String {
        self.messages.push(Message::user(text));
        self.calls.clear();
        for _ in 0..8 {
            let (text, calls) = self.step();
            self.messages.push(Message::Assistant {
                text: text.clone(),
                tool_calls: calls.clone(),
            });
            if calls.is_empty() {
                return text;
            }
            for call in calls {
                assert!(self.tools.contains(&call.name), "{} was not offered", call.name);
                let message = self.answer(&call);
                self.messages.push(message);
                self.calls.push(call);
            }
        }
        panic!("no answer after 8 steps to {text:?}");
    }

    pub(super) fn called(&self) -> Vec<&str> {
        self.calls.iter().map(|call| call.name.as_str()).collect()
    }

    fn answer(&mut self, call: &ToolCall) -> Message {
        if self.failing.contains(&call.name.as_str()) {
            let object = json!({"error": "internal_error", "detail": "the service did not answer"});
            return Message::tool_error(call, object, "internal_error");
        }
        let text = |key: &str| {
            call.arguments
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let agents = self.agents.as_array().unwrap();
        let slug = if call.name.starts_with("get_") {
            text("slug")
        } else {
            text("agent_slug")
        };
        let agent = agents.iter().find(|agent| agent["slug"] == slug.as_str()).cloned();
        let result = match call.name.as_str() {
            "list_sandboxes" => json!({"sandboxes": self.sandboxes, "count": 0}),
            "list_agents" => {
                let status = call.arguments.get("status");
                let fits = |agent: &&Value| status.is_none_or(|status| agent["status"] == *status);
                json!({"agents": agents.iter().filter(fits).collect::<Vec<_>>(), "count": 0})
            }
            "list_sources" => json!({"sources": self.sources, "count": 0}),
            "list_api_keys" => json!({"keys": self.keys, "count": 0}),
            "get_source" => {
                let id = text("data_source_id");
                let found = self
                    .sources
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|row| row["data_source_id"] == id.as_str());
                json!({"source": found})
            }
            "get_agent" => {
                let mut agent = agent.unwrap();
                agent["system_prompt"] = json!(self.prompt);
                agent["tool_allowlist"] = self.allowlist.clone();
                agent["tool_sources"] = self.tool_sources.clone();
                agent["model_settings"] = self.settings.clone();
                json!({"agent": agent})
            }
            "list_triggers" if slug == "support" => json!({"agent_slug": slug, "count": 2, "triggers": [
                {"trigger_id": "tr_1", "data_source_id": "ds_gh", "event_type_filter": "github.issues.opened", "status": "active", "fire_count": 12, "last_fired_at": "2026-03-01T10:00:00Z"},
                {"trigger_id": "tr_2", "data_source_id": "ds_sl", "event_type_filter": "slack.message.new", "status": "paused", "fire_count": 0, "last_fired_at": null},
            ]}),
            "list_triggers" => json!({"agent_slug": slug, "triggers": [], "count": 0}),
            "list_runs" if slug == "issue-triage" => json!({"agent_slug": slug, "count": 2, "runs": [
                {"run_id": "rn_9", "status": "failed", "error_message": "provider is down", "started_at": "2026-03-01T09:00:00Z", "finished_at": "2026-03-01T09:00:10Z", "duration_ms": 10_000, "warnings": self.warnings},
                {"run_id": "rn_8", "status": "succeeded", "error_message": null, "started_at": "2026-02-28T09:00:00Z", "duration_ms": 900, "tokens_in": 10, "tokens_out": 2},
            ]}),
            "list_runs" if slug == "support" => json!({"agent_slug": slug, "count": 1, "runs": [
                {"run_id": "rn_5", "status": "succeeded", "error_message": null, "started_at": "2026-03-01T09:00:00Z", "duration_ms": 1_500, "warnings": self.warnings},
            ]}),
            "list_runs" => json!({"agent_slug": slug, "runs": [], "count": 0}),
            "get_run_trace" => {
                json!({"run_id": text("run_id"), "agent_id": "ag_2", "status": "failed", "started_at": null, "finished_at": null,
                "error_message": null, "tool_resolution_trace": self.trace})
            }
            "create_agent" => {
                let mut agent = call.arguments.clone();
                agent["agent_id"] = json!("ag_new");
                agent["status"] = json!("active");
                agent["version"] = json!(1);
                self.agents.as_array_mut().unwrap().push(agent.clone());
                json!({"agent": agent})
            }
            "list_apps" => {
                json!({"apps": [{"app_slug": "slack", "name": "Slack", "provider": "pipedream"}], "next_cursor": null})
            }
            "list_agent_tools" => json!({"tools": self.agent_tools, "by_app": {}, "count": 0}),
            "update_agent_prompt" => {
                self.prompt = text("system_prompt");
                json!({"agent": {"agent_id": "ag_1", "slug": text("slug"), "version": 4}})
            }
            "update_agent_tools" => {
                self.allowlist = call.arguments["tool_allowlist"].clone();
                json!({"agent": {"agent_id": "ag_1", "slug": text("slug"), "version": 4, "tool_allowlist": self.allowlist,
                    "allowlist_missing_entries": [], "warnings": self.warnings}})
            }
            "update_agent_model_settings" => {
                let mut given = call.arguments.as_object().unwrap().clone();
                given.remove("slug");
                self.settings.as_object_mut().unwrap().extend(given);
                json!({"agent": {"agent_id": "ag_1", "slug": text("slug"), "version": 5, "model_settings": self.settings}})
            }
            "update_agent_tool_sources" => {
                self.tool_sources = call.arguments["tool_sources"].clone();
                json!({"agent": {"agent_id": "ag_1", "slug": text("slug"), "version": 4, "tool_sources": self.tool_sources}})
            }
            "test_agent" => {
                json!({"run_id": "rn_test", "status": "succeeded", "output_text": "Thank you for your mail.",
                "tokens_in": 20, "tokens_out": 6, "duration_ms": 1_200, "error_message": null,
                "tool_resolution_trace": self.trace})
            }
            "mint_agent_invoke_key" | "mint_agent_delegate_key" => {
                json!({"api_key_id": "ak_new", "plaintext_key": self.minted, "key_prefix": "olk_TheOneAn",
                "kind": call.name.replace("mint_", "").replace("_key", ""), "label": call.arguments.get("label"),
                "agent_id": "ag_1", "agent_slug": text("slug"), "expires_at": null, "warning": "w", "explanation": "e"})
            }
            "list_connected_accounts" => json!({"accounts": [], "count": 0}),
            "list_trigger_components" => json!({"components": [], "count": 0}),
            other => panic!("no such tool: {other}"),
        };
        Message::tool_result(call, result)
    }
}

//! Sandbox tools.

use async_trait::async_trait;
use copass_errors::Result;
use serde_json::{Value, json};

use super::{Tool, ToolContext};

pub(crate) struct ListSandboxes;

#[async_trait]
impl Tool for ListSandboxes {
    fn name(&self) -> &'static str {
        "list_sandboxes"
    }

    fn description(&self) -> &'static str {
        "Lists the sandboxes the person owns or has a connection to, with tier and status."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({})
    }

    fn tells_errors(&self) -> bool {
        false
    }

    async fn call(&self, context: ToolContext<'_>, _arguments: Value) -> Result<Value> {
        let views = context.clients.app.list_sandboxes(context.call, None, None).await?;
        let rows: Vec<Value> = views
            .iter()
            .map(|view| {
                json!({
                    "sandbox_id": view.row.id,
                    "name": view.row.name,
                    "tier": view.row.tier,
                    "status": view.row.status,
                    "created_at": view.row.created_at,
                    "access": view.role,
                    "is_current": view.row.id == context.sandbox_id.as_str(),
                })
            })
            .collect();
        Ok(json!({ "count": rows.len(), "sandboxes": rows }))
    }
}

//! API key tools: metadata only, never a secret.

use async_trait::async_trait;
use copass_errors::Result;
use serde_json::{Value, json};

use super::{Tool, ToolContext};

pub(crate) struct ListApiKeys;

#[async_trait]
impl Tool for ListApiKeys {
    fn name(&self) -> &'static str {
        "list_api_keys"
    }

    fn description(&self) -> &'static str {
        "Lists the person's API keys: kind, label, prefix, expiry. Secrets are never shown again."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({
            "kinds": {
                "type": "array",
                "items": { "type": "string", "enum": ["general", "agent_invoke", "agent_delegate"] },
                "description": "Only these kinds; all when absent."
            },
            "include_revoked": { "type": "boolean", "description": "Also keys that were revoked." }
        })
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let kinds: Vec<String> = arguments
            .get("kinds")
            .and_then(Value::as_array)
            .map(|kinds| kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        let include_revoked = arguments
            .get("include_revoked")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let rows = context
            .clients
            .app
            .list_api_keys(context.call, &kinds, include_revoked)
            .await?;
        let keys: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "api_key_id": row.id,
                    "kind": row.kind,
                    "label": row.name,
                    "key_prefix": row.key_prefix,
                    "agent_id": row.agent_id,
                    "created_at": row.created_at,
                    "expires_at": row.expires_at,
                    "revoked_at": row.revoked_at,
                    "last_used_at": row.last_used_at,
                })
            })
            .collect();
        Ok(json!({ "count": keys.len(), "keys": keys }))
    }
}

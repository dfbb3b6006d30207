//! Data source tools.

use async_trait::async_trait;
use copass_errors::{Error, Result};
use copass_proto::source::{DataSource, GetSourceRequest, ListSourcesRequest};
use serde_json::{Value, json};

use super::{Tool, ToolContext, instant, json_or_null, text};

pub(crate) struct ListSources;
pub(crate) struct GetSource;

fn row(source: &DataSource) -> Value {
    json!({
        "data_source_id": source.data_source_id,
        "name": source.name,
        "provider": source.provider,
        "status": source.status,
        "ingestion_mode": source.ingestion_mode,
        "kind": source.kind,
        "external_account_id": source.external_account_id,
        "webhook_url": source.webhook_url,
        "last_sync_at": instant(source.last_sync_at.as_ref()),
        "created_at": instant(source.created_at.as_ref()),
    })
}

#[async_trait]
impl Tool for ListSources {
    fn name(&self) -> &'static str {
        "list_sources"
    }

    fn description(&self) -> &'static str {
        "Lists the data sources of this sandbox with provider, status and mode."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({ "provider": { "type": "string", "description": "Only sources of this provider, for example slack." } })
    }

    fn tells_errors(&self) -> bool {
        false
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let request = ListSourcesRequest {
            sandbox_id: context.sandbox_id.to_string(),
            provider: text(&arguments, "provider"),
            status: None,
        };
        let mut sources = context.clients.sources.clone();
        let list = sources
            .list_sources(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        let rows: Vec<Value> = list.sources.iter().map(row).collect();
        Ok(json!({ "count": rows.len(), "sources": rows }))
    }
}

#[async_trait]
impl Tool for GetSource {
    fn name(&self) -> &'static str {
        "get_source"
    }

    fn description(&self) -> &'static str {
        "Shows one data source with its adapter configuration."
    }

    fn read_only(&self) -> bool {
        true
    }

    fn properties(&self) -> Value {
        json!({ "data_source_id": { "type": "string", "minLength": 1, "description": "The id, ds_…" } })
    }

    fn required(&self) -> &'static [&'static str] {
        &["data_source_id"]
    }

    async fn call(&self, context: ToolContext<'_>, arguments: Value) -> Result<Value> {
        let request = GetSourceRequest {
            sandbox_id: context.sandbox_id.to_string(),
            data_source_id: text(&arguments, "data_source_id").unwrap_or_default(),
        };
        let mut sources = context.clients.sources.clone();
        let source = sources
            .get_source(context.call.request(request))
            .await
            .map_err(Error::from)?
            .into_inner();
        let mut value = row(&source);
        value["adapter_config"] = json_or_null(Some(&source.adapter_config_json));
        Ok(json!({ "source": value }))
    }
}

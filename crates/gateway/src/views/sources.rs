//! Data sources.

use copass_errors::Result;
use copass_proto::source as proto;
use copass_types::api;

use super::{instant, object};

pub(crate) fn source(source: proto::DataSource) -> Result<api::DataSource> {
    Ok(api::DataSource {
        data_source_id: source.data_source_id,
        user_id: source.user_id,
        sandbox_id: source.sandbox_id,
        provider: source.provider,
        name: source.name,
        ingestion_mode: source.ingestion_mode,
        status: source.status,
        kind: source.kind,
        external_account_id: source.external_account_id,
        adapter_config: object(&source.adapter_config_json)?,
        poll_interval_seconds: source.poll_interval_seconds,
        webhook_url: source.webhook_url,
        webhook_signing_secret: None,
        auto_deploy_error: None,
        last_sync_at: instant(source.last_sync_at),
        created_at: instant(source.created_at),
        updated_at: instant(source.updated_at),
    })
}

pub(crate) fn list(list: proto::ListSourcesResponse) -> Result<api::DataSourceList> {
    let sources = super::each(list.sources, source)?;
    Ok(api::DataSourceList {
        count: sources.len(),
        sources,
    })
}

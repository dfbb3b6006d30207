//! Sandboxes.

use copass_errors::Result;
use copass_proto::sandbox as proto;
use copass_types::api;

use super::{instant, object};

pub(crate) fn sandbox(sandbox: proto::Sandbox) -> Result<api::Sandbox> {
    let limits = sandbox.limits.unwrap_or_default();
    Ok(api::Sandbox {
        sandbox_id: sandbox.sandbox_id,
        user_id: sandbox.user_id,
        owner_id: sandbox.owner_id,
        name: sandbox.name,
        tier: sandbox.tier,
        status: sandbox.status,
        storage_provider_type: sandbox.storage_provider_type,
        limits: api::SandboxLimits {
            max_data_sources: limits.max_data_sources,
            max_projects: limits.max_projects,
            max_storage_bytes: limits.max_storage_bytes,
        },
        metadata: object(&sandbox.metadata_json)?,
        created_at: instant(sandbox.created_at),
        access: Some(sandbox.access).filter(|access| !access.is_empty()),
        is_external: sandbox.is_external,
    })
}

pub(crate) fn list(list: proto::ListSandboxesResponse) -> Result<api::SandboxList> {
    let sandboxes = super::each(list.sandboxes, sandbox)?;
    Ok(api::SandboxList {
        count: sandboxes.len(),
        sandboxes,
    })
}

/// The answer of suspend, reactivate and archive.
pub(crate) fn status(sandbox: proto::Sandbox) -> api::StatusResponse {
    api::StatusResponse {
        success: true,
        message: Some(format!("sandbox is {}", sandbox.status)),
        sandbox_id: Some(sandbox.sandbox_id),
        status: Some(sandbox.status),
        ..api::StatusResponse::default()
    }
}

/// The answer of destroy.
pub(crate) fn destroyed(sandbox_id: String) -> api::StatusResponse {
    api::StatusResponse {
        success: true,
        message: Some("sandbox and everything in it is destroyed".to_owned()),
        sandbox_id: Some(sandbox_id),
        status: Some("destroyed".to_owned()),
        deleted: Some(true),
        ..api::StatusResponse::default()
    }
}

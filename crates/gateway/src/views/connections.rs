//! Grants.

use copass_errors::Result;
use copass_proto::sandbox as proto;
use copass_types::api;

use super::{identity::SHOWN_ONCE, instant, required_instant};

/// A row of the list.
pub(crate) fn connection(connection: proto::Connection) -> Result<api::SandboxConnection> {
    Ok(api::SandboxConnection {
        connection_id: connection.connection_id,
        sandbox_id: connection.sandbox_id,
        user_id: connection.user_id,
        copass_id: connection.copass_id,
        role: connection.role,
        project_id: connection.project_id,
        label: connection.label,
        expires_at: instant(connection.expires_at),
        revoked_at: instant(connection.revoked_at),
        created_by: connection.created_by,
        created_at: required_instant(connection.created_at)?,
        status: connection.status,
        next_step: None,
    })
}

/// A grant that was just made.
pub(crate) fn created(created: proto::Connection) -> Result<api::SandboxConnection> {
    let mut view = connection(created)?;
    view.next_step = Some(format!(
        "The sandbox is in the grantee's own list now. For a key that works in this sandbox alone: \
         POST /storage/sandboxes/{}/connections/{}/api-keys",
        view.sandbox_id, view.connection_id
    ));
    Ok(view)
}

pub(crate) fn list(list: proto::ListConnectionsResponse) -> Result<Vec<api::SandboxConnection>> {
    super::each(list.connections, connection)
}

pub(crate) fn revoked(revoked: proto::RevokeConnectionResponse) -> api::RevokedConnection {
    api::RevokedConnection {
        success: true,
        message: "grant and its keys are revoked".to_owned(),
        connection_id: revoked.connection_id,
        revoked: true,
        cascaded_keys: revoked.cascaded_keys,
    }
}

pub(crate) fn spawned_key(spawned: proto::SpawnedConnectionKey) -> api::SpawnedConnectionKey {
    api::SpawnedConnectionKey {
        key_id: spawned.api_key_id.clone(),
        api_key_id: spawned.api_key_id,
        key: spawned.plaintext.clone(),
        plaintext_key: spawned.plaintext,
        key_prefix: spawned.key_prefix,
        expires_at: instant(spawned.expires_at),
        warning: Some(SHOWN_ONCE.to_owned()),
    }
}

//! The audit log.

use copass_errors::Result;
use copass_proto::sandbox as proto;
use copass_types::api;

use super::{object, required_instant, value};

fn record(record: proto::AuditRecord) -> Result<api::AuditRecord> {
    Ok(api::AuditRecord {
        id: record.id,
        at: required_instant(record.at)?,
        sandbox_id: record.sandbox_id,
        actor: object(&record.actor_json)?,
        action: record.action,
        target: record.target,
        before: value(record.before_json)?,
        after: value(record.after_json)?,
        result: record.result,
        request_id: record.request_id,
    })
}

pub(crate) fn list(list: proto::ListAuditRecordsResponse) -> Result<api::AuditList> {
    let records = super::each(list.records, record)?;
    Ok(api::AuditList {
        count: records.len(),
        records,
    })
}

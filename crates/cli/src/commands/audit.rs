//! `copass audit`.

use copass_types::api::{AuditRecord, ListAuditQuery};

use crate::{
    args::AuditCommand,
    context::Context,
    failure::Failure,
    older::Listed,
    table::{
        self,
        Spare::{Cut, Omit},
    },
};

/// Records of a list when nobody says how many.
const PAGE: u32 = 100;

pub(crate) async fn run(context: &Context, command: AuditCommand) -> Result<(), Failure> {
    let AuditCommand::List { limit, before } = command;
    let (client, sandbox_id) = context.in_sandbox().await?;
    let none = if before.is_some() {
        "No older records."
    } else {
        "No records."
    };
    let reply = client
        .list_audit(&sandbox_id, &ListAuditQuery { limit, before })
        .await?;
    context.output.reply(&reply, |list| {
        let rows = list.records.iter().map(|record| {
            [
                record.id.clone(),
                table::time(&record.at),
                actor(record),
                record.action.clone(),
                record.target.clone(),
                record.result.clone(),
            ]
        });
        table::rows(
            ["ID", "AT", "WHO", "ACTION", "TARGET", "RESULT"],
            &[Cut("WHO"), Cut("TARGET"), Omit("ID")],
            rows,
            none,
        )
    })?;
    let records = &reply.value.records;
    let is_full = records.len() >= limit.unwrap_or(PAGE) as usize;
    if let Some(oldest) = records.last().filter(|_| is_full) {
        let listed = Listed {
            rows: "records",
            command: &["audit", "list"],
            options: &[("--limit", limit.map(|limit| limit.to_string()))],
        };
        listed.tell_older(&context.output, &oldest.id);
    }
    Ok(())
}

/// The person first, then the rest of the chain as it is.
fn actor(record: &AuditRecord) -> String {
    let text = |key: &str| record.actor.get(key).and_then(serde_json::Value::as_str);
    let person = text("email").or_else(|| text("copass_id")).or_else(|| text("user_id"));
    match (person, text("api_key_id").or_else(|| text("kind"))) {
        (Some(person), Some(through)) => format!("{person} ({through})"),
        (Some(person), None) => person.to_owned(),
        (None, _) if record.actor.is_empty() => "-".to_owned(),
        (None, _) => serde_json::Value::Object(record.actor.clone()).to_string(),
    }
}

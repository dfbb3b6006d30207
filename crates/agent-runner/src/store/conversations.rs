//! Conversations and their messages.
//!
//! A conversation belongs to one person, in one sandbox, with one agent; every statement names all three, so a foreign
//! session id is the same as an unknown one. `busy_run_id` is the turn in progress, and at most one.

use chrono::{DateTime, Utc};
use copass_errors::Result;
use copass_llm::Message;
use copass_store::{AsConn, Batch, Dialect, Json, Tx, add_to, execute, fetch_all, fetch_optional};
use copass_types::{AgentId, RunId, SandboxId, SessionId, UserId};

/// Whose conversation it is.
#[derive(Debug, Clone)]
pub(crate) struct Owner<'a> {
    pub(crate) sandbox_id: &'a SandboxId,
    pub(crate) user_id: &'a UserId,
    pub(crate) agent_id: &'a AgentId,
    /// The end user of a stateless run, or the agent key that the caller has; empty for persons.
    pub(crate) end_user_id: &'a str,
}

/// What became of the wish to take a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The turn is the run's.
    Taken,
    /// Another run has the turn.
    Busy,
    /// There is no such conversation of this person.
    Unknown,
}

/// Adds a conversation whose first turn is the run's.
pub(crate) fn insert(
    batch: &mut Batch,
    session_id: &SessionId,
    owner: &Owner<'_>,
    provider: &str,
    run_id: &RunId,
    now: DateTime<Utc>,
) {
    add_to!(
        *batch,
        "insert into conversations (id, sandbox_id, user_id, agent_id, busy_run_id, created_at, updated_at, \
         end_user_id, provider) values ($1, $2, $3, $4, $5, $6, $6, $7, $8)",
        session_id.as_str(),
        owner.sandbox_id.as_str(),
        owner.user_id.as_str(),
        owner.agent_id.as_str(),
        run_id.as_str(),
        now,
        owner.end_user_id,
        provider,
    );
}

/// The provider of a conversation; `None` when there is no such conversation of this owner.
pub(crate) async fn provider(
    tx: &mut Tx,
    session_id: &SessionId,
    owner: &Owner<'_>,
) -> copass_store::Result<Option<String>> {
    let row = fetch_optional!(
        *tx,
        (String,),
        "select provider from conversations \
         where id = $1 and sandbox_id = $2 and user_id = $3 and agent_id = $4 and end_user_id = $5",
        session_id.as_str(),
        owner.sandbox_id.as_str(),
        owner.user_id.as_str(),
        owner.agent_id.as_str(),
        owner.end_user_id,
    )?;
    Ok(row.map(|(provider,)| provider))
}

/// Takes the next turn of a conversation for the run, if nobody has it.
pub(crate) async fn claim(
    tx: &mut Tx,
    session_id: &SessionId,
    owner: &Owner<'_>,
    run_id: &RunId,
    now: DateTime<Utc>,
) -> copass_store::Result<Claim> {
    let rows = execute!(
        *tx,
        "update conversations set busy_run_id = $5, updated_at = $6 \
         where id = $1 and sandbox_id = $2 and user_id = $3 and agent_id = $4 and end_user_id = $7 \
         and busy_run_id is null",
        session_id.as_str(),
        owner.sandbox_id.as_str(),
        owner.user_id.as_str(),
        owner.agent_id.as_str(),
        run_id.as_str(),
        now,
        owner.end_user_id,
    )?;
    if rows == 1 {
        return Ok(Claim::Taken);
    }
    let known = fetch_optional!(
        *tx,
        (String,),
        "select id from conversations \
         where id = $1 and sandbox_id = $2 and user_id = $3 and agent_id = $4 and end_user_id = $5",
        session_id.as_str(),
        owner.sandbox_id.as_str(),
        owner.user_id.as_str(),
        owner.agent_id.as_str(),
        owner.end_user_id,
    )?;
    Ok(if known.is_some() { Claim::Busy } else { Claim::Unknown })
}

/// Gives the turn back; nothing happens when the run does not have it.
pub(crate) fn release(
    batch: &mut Batch,
    sandbox_id: &SandboxId,
    session_id: &SessionId,
    run_id: &RunId,
    now: DateTime<Utc>,
) {
    add_to!(
        *batch,
        "update conversations set busy_run_id = null, updated_at = $4 \
         where id = $1 and sandbox_id = $2 and busy_run_id = $3",
        session_id.as_str(),
        sandbox_id.as_str(),
        run_id.as_str(),
        now,
    );
}

/// The newest messages of other runs, oldest of them first. The caller has claimed the turn, so nobody adds to them.
pub(crate) async fn newest_messages<C: AsConn>(
    conn: &mut C,
    session_id: &SessionId,
    without: &RunId,
    limit: i64,
) -> Result<Vec<Message>> {
    let rows = fetch_all!(
        *conn,
        (Json<Message>,),
        "select message from conversation_messages where session_id = $1 and run_id <> $3 order by seq desc limit $2",
        session_id.as_str(),
        limit,
        without.as_str(),
    )?;
    Ok(rows.into_iter().rev().map(|(message,)| message.0).collect())
}

/// What the parts of a batch see differs: on SQLite the messages before, on PostgreSQL none of the same batch.
macro_rules! append_sql {
    ($place:literal) => {
        concat!(
            "insert into conversation_messages (session_id, seq, run_id, message, created_at) \
             select $1, coalesce(max(seq), 0) + ",
            $place,
            ", $3, $4, $5 from conversation_messages where session_id = $1"
        )
    };
}

/// Adds messages at the end; once in a batch. The caller has claimed the turn.
pub(crate) fn append<'a>(
    batch: &mut Batch,
    session_id: &SessionId,
    run_id: &RunId,
    messages: impl IntoIterator<Item = &'a Message>,
    now: DateTime<Utc>,
) {
    let sql = match batch.dialect() {
        Dialect::Postgres => append_sql!("$2"),
        Dialect::Sqlite => append_sql!("1"),
    };
    for (place, message) in (1_i64..).zip(messages) {
        add_to!(
            *batch,
            sql,
            session_id.as_str(),
            place,
            run_id.as_str(),
            Json(message),
            now,
        );
    }
}

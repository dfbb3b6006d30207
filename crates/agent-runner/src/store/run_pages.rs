//! Pages of an agent's runs, out of any number of them.
//!
//! A condition like "no filter, or the filter fits" makes a database forget its indexes, so each set of filters has its
//! own text, and behind each stands an index that begins with the filters and ends with the id: a page costs its rows,
//! not the history. What remains beside the index (the person, the version) either concerns few runs or comes with a
//! range of ids in which nearly every run fits.
//!
//! Databases have to be talked into it. With `agent_id = $1` the order by id is as good in the primary key, and PostgreSQL
//! likes to read that one backwards past the runs of everybody else; SQLite, which keeps no statistics, holds any two of
//! these indexes for equal. A range of whole rows has its order in one index only, and both find it.

use copass_errors::Result;
use copass_store::{AsConn, fetch_all};
use copass_types::{AgentId, SandboxId, UserId};

use super::runs::{Row, run_columns};
use crate::app::domain::{Run, RunStatus};

/// Later than every run: where a list without a cursor begins. A valid id text, because collations of databases agree
/// on digits and capitals only.
pub(crate) const AFTER_ALL: &str = "rn_ZZZZZZZZZZZZZZZZZZZZZZZZZZ";

/// Which runs of an agent a page shows.
#[derive(Debug, Clone)]
pub(crate) struct Filter<'a> {
    /// Only runs with this id or a later one.
    pub(crate) from: &'a str,
    /// Only runs older than this one.
    pub(crate) before: &'a str,
    pub(crate) trigger_id: Option<&'a str>,
    pub(crate) status: Option<RunStatus>,
    /// Only runs that act for this person.
    pub(crate) user_id: Option<&'a UserId>,
    pub(crate) agent_version: Option<i64>,
    pub(crate) limit: i64,
}

/// The text of a page: which runs, and their order.
macro_rules! page_sql {
    ($range:literal, $order:literal) => {
        concat!(
            "select ",
            run_columns!(),
            ", case when octet_length(cast(r.input_event as text)) <= 65536 then r.input_event end as input_event, \
             substr(r.output_text, 1, 8192) as output_text, substr(r.error_message, 1, 4096) as error_message \
             from runs r cross join agents a where ",
            $range,
            " and a.id = $1 and a.sandbox_id = $4 and (cast($5 as text) is null or r.user_id = $5) \
             and (cast($6 as bigint) is null or r.agent_version = $6) order by ",
            $order,
            " limit $7"
        )
    };
}

const ALL: &str = page_sql!(
    "(r.agent_id, r.id) >= ($1, $2) and (r.agent_id, r.id) < ($1, $3)",
    "r.agent_id desc, r.id desc"
);
const BY_STATUS: &str = page_sql!(
    "(r.agent_id, r.status, r.id) >= ($1, $8, $2) and (r.agent_id, r.status, r.id) < ($1, $8, $3)",
    "r.agent_id desc, r.status desc, r.id desc"
);
const BY_TRIGGER: &str = page_sql!(
    "r.trigger_id is not null and (r.agent_id, r.trigger_id, r.id) >= ($1, $8, $2) \
     and (r.agent_id, r.trigger_id, r.id) < ($1, $8, $3)",
    "r.agent_id desc, r.trigger_id desc, r.id desc"
);
const BY_TRIGGER_AND_STATUS: &str = page_sql!(
    "r.trigger_id is not null and (r.agent_id, r.trigger_id, r.status, r.id) >= ($1, $8, $9, $2) \
     and (r.agent_id, r.trigger_id, r.status, r.id) < ($1, $8, $9, $3)",
    "r.agent_id desc, r.trigger_id desc, r.status desc, r.id desc"
);

/// Runs of an agent, newest first, without their traces and long events and with the beginning of their texts: a page must
/// fit into one message whatever the runs read and wrote.
pub(crate) async fn list<C: AsConn>(
    conn: &mut C,
    sandbox_id: &SandboxId,
    agent_id: &AgentId,
    filter: &Filter<'_>,
) -> Result<Vec<Run>> {
    macro_rules! rows {
        ($sql:expr $(, $value:expr)*) => {
            fetch_all!(
                *conn,
                Row,
                $sql,
                agent_id.as_str(),
                filter.from,
                filter.before,
                sandbox_id.as_str(),
                filter.user_id.map(UserId::as_str),
                filter.agent_version,
                filter.limit
                $(, $value)*
            )
        };
    }
    let status = filter.status.map(RunStatus::as_str);
    let rows = match (filter.trigger_id, status) {
        (None, None) => rows!(ALL),
        (None, Some(status)) => rows!(BY_STATUS, status),
        (Some(trigger_id), None) => rows!(BY_TRIGGER, trigger_id),
        (Some(trigger_id), Some(status)) => rows!(BY_TRIGGER_AND_STATUS, trigger_id, status),
    };
    rows?.into_iter().map(|row| row.run().map(|(run, _)| run)).collect()
}

#[cfg(test)]
mod tests {
    use copass_runtime::clock;
    use copass_store::{Db, Json, execute};
    use copass_test_support::{TestDatabase, on_both_databases};
    use copass_types::TriggerId;
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::{app::domain::ModelSettings, store::agents::ensure_system};

    on_both_databases! {
        a_page_costs_its_rows_whatever_it_is_filtered_by
        a_page_has_the_newest_runs_that_fit
    }

    /// Enough that a plan that reads them all shows.
    const RUNS: i64 = 20_000;
    /// One in so many failed, and one in so many others came from the second trigger.
    const RARE: i64 = 5_000;

    struct History {
        db: Db,
        sandbox_id: SandboxId,
        user_id: UserId,
        agent_id: AgentId,
        triggers: [TriggerId; 2],
    }

    fn run_id(number: i64) -> String {
        format!("rn_00000000000000{}", 100_000_000_000_i64 + number)
    }

    impl History {
        async fn new(db: Db) -> Self {
            let (sandbox_id, user_id) = (SandboxId::generate(), UserId::generate());
            let triggers = [TriggerId::generate(), TriggerId::generate()];
            let settings = ModelSettings {
                backend: "planner".to_owned(),
                model: "planner".to_owned(),
                temperature: None,
                max_tokens: None,
                max_turns: None,
                timeout_s: None,
                compute_provider: None,
            };
            let mut tx = db.begin().await.unwrap();
            let now = clock::now();
            let mut agents = Vec::new();
            // Another agent is as busy, and busier lately.
            for (slug, prefix) in [("@concierge", "rn_00000000000000"), ("@run", "rn_00000000000001")] {
                let agent_id = ensure_system(&mut tx, &sandbox_id, &user_id, slug, &settings, now)
                    .await
                    .unwrap();
                execute!(
                    tx,
                    "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < $8) \
                     insert into runs (id, sandbox_id, user_id, agent_id, agent_version, trigger_id, status, warnings, \
                     fence, created_at) select $10 || cast(100000000000 + n as text), $1, $2, $3, 1, \
                     case when n % $9 = 1 then $5 else $4 end, case when n % $9 = 0 then 'failed' else 'succeeded' end, \
                     $6, 1, $7 from numbers",
                    sandbox_id.as_str(),
                    user_id.as_str(),
                    agent_id.as_str(),
                    triggers[0].as_str(),
                    triggers[1].as_str(),
                    Json(Vec::<String>::new()),
                    now,
                    RUNS,
                    RARE,
                    prefix,
                )
                .unwrap();
                agents.push(agent_id);
            }
            execute!(
                tx,
                "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < 1000) \
                 insert into agents select 'ag_' || cast(n as text), sandbox_id, user_id, 'agent-' || cast(n as text), \
                 kind, name, description, system_prompt, tool_allowlist, tool_sources, model_settings, status, version, \
                 created_at, updated_at from numbers cross join agents where id = $1",
                agents[0].as_str(),
            )
            .unwrap();
            tx.commit().await.unwrap();
            // PostgreSQL does this by itself some time after a change; SQLite never does.
            if let Db::Postgres { pool, .. } = &db {
                sqlx::raw_sql("analyze runs; analyze agents")
                    .execute(pool)
                    .await
                    .unwrap();
            }
            Self {
                db,
                sandbox_id,
                user_id,
                agent_id: agents.remove(0),
                triggers,
            }
        }

        async fn ids(&self, filter: &Filter<'_>) -> Vec<String> {
            let mut conn = self.db.read().await.unwrap();
            let runs = list(&mut conn, &self.sandbox_id, &self.agent_id, filter).await.unwrap();
            runs.into_iter().map(|run| run.id.to_string()).collect()
        }

        /// How the database would read a page, and for PostgreSQL how it did.
        async fn plans(&self, sql: &str, values: &[&str]) -> Vec<String> {
            match &self.db {
                Db::Sqlite { read, .. } => {
                    let sql = AssertSqlSafe(format!("explain query plan {sql}"));
                    let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(sql).fetch_all(read).await.unwrap();
                    vec![rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("\n")]
                }
                Db::Postgres { pool, .. } => {
                    let mut plans = Vec::new();
                    for mode in ["force_custom_plan", "force_generic_plan"] {
                        let mut conn = pool.acquire().await.unwrap();
                        let [user, version, limit] = ["null", "null", "20"];
                        let (agent, sandbox) = (&self.agent_id, &self.sandbox_id);
                        let more: String = values.iter().map(|value| format!(", '{value}'")).collect();
                        let text = format!(
                            "set plan_cache_mode = {mode}; prepare page (text, text, text, text, text, bigint, bigint, \
                             text, text) as {sql}; explain (analyze, costs off, timing off, summary off) execute page \
                             ('{agent}', 'rn_', '{AFTER_ALL}', '{sandbox}', {user}, {version}, {limit}{more}{})",
                            ", ''".repeat(2 - values.len()),
                        );
                        let rows = sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(&mut *conn).await.unwrap();
                        let lines = rows.iter().map(|row| sqlx::Row::get::<String, _>(row, 0));
                        plans.push(lines.collect::<Vec<_>>().join("\n"));
                        conn.close().await.unwrap();
                    }
                    plans
                }
            }
        }
    }

    fn filter<'a>() -> Filter<'a> {
        Filter {
            from: "rn_",
            before: AFTER_ALL,
            trigger_id: None,
            status: None,
            user_id: None,
            agent_version: None,
            limit: 20,
        }
    }

    async fn a_page_costs_its_rows_whatever_it_is_filtered_by(database: TestDatabase) {
        let history = History::new(database.db()).await;
        let [often, seldom] = [history.triggers[0].as_str(), history.triggers[1].as_str()];
        for (sql, values, index) in [
            (ALL, &[][..], "runs_agent_id_id_idx"),
            (BY_STATUS, &["failed"], "runs_agent_id_status_id_idx"),
            (BY_STATUS, &["cancelled"], "runs_agent_id_status_id_idx"),
            (BY_TRIGGER, &[often], "runs_agent_id_trigger_id_id_idx"),
            (BY_TRIGGER, &[seldom], "runs_agent_id_trigger_id_id_idx"),
            (
                BY_TRIGGER_AND_STATUS,
                &[often, "failed"],
                "runs_agent_id_trigger_id_status_id_idx",
            ),
            (
                BY_TRIGGER_AND_STATUS,
                &[seldom, "succeeded"],
                "runs_agent_id_trigger_id_status_id_idx",
            ),
        ] {
            for plan in history.plans(sql, values).await {
                let uses_it = plan.split(|character: char| !character.is_alphanumeric() && character != '_');
                assert!(
                    uses_it.into_iter().any(|word| word == index),
                    "{values:?} {index}:\n{plan}"
                );
                // Nothing is put in order, and nothing is read in vain.
                for waste in ["Sort", "TEMP B-TREE", "Rows Removed", "Seq Scan on runs", "SCAN r"] {
                    assert!(!plan.contains(waste), "{values:?}: {waste}:\n{plan}");
                }
            }
        }
    }

    async fn a_page_has_the_newest_runs_that_fit(database: TestDatabase) {
        let history = History::new(database.db()).await;
        let newest: Vec<String> = (0..20).map(|number| run_id(RUNS - number)).collect();
        assert_eq!(history.ids(&filter()).await, newest);
        let failed: Vec<String> = (0..RUNS / RARE).map(|number| run_id(RUNS - number * RARE)).collect();
        let mut by_status = filter();
        by_status.status = Some(RunStatus::Failed);
        assert_eq!(history.ids(&by_status).await, failed);
        let seldom: Vec<String> = (1..=RUNS / RARE)
            .map(|number| run_id(RUNS - number * RARE + 1))
            .collect();
        let mut by_trigger = filter();
        by_trigger.trigger_id = Some(history.triggers[1].as_str());
        assert_eq!(history.ids(&by_trigger).await, seldom);
        by_trigger.status = Some(RunStatus::Succeeded);
        assert_eq!(history.ids(&by_trigger).await, seldom);
        by_trigger.status = Some(RunStatus::Failed);
        assert!(history.ids(&by_trigger).await.is_empty());
        // A range of ids, its beginning included and its end not.
        let (from, before) = (run_id(RARE), run_id(3 * RARE));
        let mut between = filter();
        (between.from, between.before, between.status) = (&from, &before, Some(RunStatus::Failed));
        assert_eq!(history.ids(&between).await, [run_id(2 * RARE), run_id(RARE)]);
        let (stranger, elsewhere) = (UserId::generate(), SandboxId::generate());
        let mut of_person = filter();
        of_person.user_id = Some(&history.user_id);
        assert_eq!(history.ids(&of_person).await, newest);
        of_person.user_id = Some(&stranger);
        assert!(history.ids(&of_person).await.is_empty());
        let mut of_version = filter();
        of_version.agent_version = Some(2);
        assert!(history.ids(&of_version).await.is_empty());
        let mut conn = history.db.read().await.unwrap();
        let runs = list(&mut conn, &elsewhere, &history.agent_id, &filter()).await.unwrap();
        assert!(runs.is_empty(), "another sandbox has none of them");
    }
}

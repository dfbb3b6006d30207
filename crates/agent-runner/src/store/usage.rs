//! Sums over runs, in one statement each.
//!
//! The dimensions are switches of one text, so that grouping by any of them needs no text made at run time. The sum of the
//! sums comes with the groups, because what is cut off at the end of the list must still be in the total.

use copass_errors::Result;
use copass_store::{AsConn, Dialect, fetch_all};
use copass_types::{SandboxId, UserId};

use crate::app::{
    id_window::IdWindow,
    usage::{Sums, Usage},
};

/// What runs can be grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Agent,
    Trigger,
    Model,
    Status,
    Entrance,
    /// UTC.
    Day,
}

impl Dimension {
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "agent" => Self::Agent,
            "trigger" => Self::Trigger,
            "model" => Self::Model,
            "status" => Self::Status,
            "entrance" => Self::Entrance,
            "day" => Self::Day,
            _ => return None,
        })
    }
}

/// Whose runs count.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of<'a> {
    Everybody,
    One(&'a UserId),
    Nobody,
}

impl Of<'_> {
    fn is_everybody(self) -> bool {
        matches!(self, Self::Everybody)
    }

    /// The one person; a text that is nobody's id otherwise.
    fn one(&self) -> &str {
        match self {
            Self::One(user_id) => user_id.as_str(),
            Self::Everybody | Self::Nobody => "",
        }
    }
}

/// Where the runs are.
#[derive(Debug, Clone)]
pub(crate) enum Scope<'a> {
    Sandbox(&'a SandboxId),
    /// All sandboxes that the account holds.
    Owner(&'a UserId),
}

/// Which runs of the scope, and by what.
#[derive(Debug, Clone)]
pub(crate) struct Filter<'a> {
    pub(crate) window: &'a IdWindow,
    pub(crate) dimensions: &'a [Dimension],
    pub(crate) agent_slug: Option<&'a str>,
    pub(crate) people_agents: Of<'a>,
    pub(crate) system_agents: Of<'a>,
    pub(crate) max_groups: i64,
}

/// The text, with the day of a run and the place where runs are looked for.
macro_rules! sum_sql {
    ($day:literal, $place:literal) => {
        concat!(
            "select agent_key, trigger_key, model_key, status_key, entrance_key, day_key, \
             runs, tokens_in, tokens_out, cost_microcents, runs_without_price, model_calls, \
             cast(sum(runs) over () as bigint) as all_runs, cast(sum(tokens_in) over () as bigint) as all_tokens_in, \
             cast(sum(tokens_out) over () as bigint) as all_tokens_out, \
             cast(sum(cost_microcents) over () as bigint) as all_cost_microcents, \
             cast(sum(runs_without_price) over () as bigint) as all_runs_without_price, \
             cast(sum(model_calls) over () as bigint) as all_model_calls from (\
             select case when $1 then a.slug else '' end as agent_key, \
             case when $2 then coalesce(r.trigger_id, '') else '' end as trigger_key, \
             case when $3 then coalesce(r.model, '') else '' end as model_key, \
             case when $4 then r.status else '' end as status_key, \
             case when $5 then r.entrance else '' end as entrance_key, \
             case when $6 then ",
            $day,
            " else '' end as day_key, \
             cast(count(*) as bigint) as runs, \
             cast(coalesce(sum(r.tokens_in), 0) as bigint) as tokens_in, \
             cast(coalesce(sum(r.tokens_out), 0) as bigint) as tokens_out, \
             cast(coalesce(sum(r.cost_microcents), 0) as bigint) as cost_microcents, \
             cast(sum(case when r.cost_microcents is null and r.started_at is not null \
             and r.status not in ('pending', 'running') then 1 else 0 end) as bigint) as runs_without_price, \
             cast(sum(r.model_calls) as bigint) as model_calls \
             from runs r join agents a on a.id = r.agent_id where ",
            $place,
            " and r.id >= $8 and r.id < $9 and (cast($10 as text) is null or a.slug = $10) \
             and case when a.kind = 'user' then $11 or r.user_id = $12 else $13 or r.user_id = $14 end \
             group by 1, 2, 3, 4, 5, 6) as grouped \
             order by tokens_in + tokens_out desc, runs desc, \
             agent_key, trigger_key, model_key, status_key, entrance_key, day_key limit $15"
        )
    };
}

macro_rules! sandbox_sql {
    ($day:literal) => {
        sum_sql!($day, "r.sandbox_id = $7")
    };
}
macro_rules! owner_sql {
    ($day:literal) => {
        sum_sql!($day, "a.user_id = $7")
    };
}

const SANDBOX_POSTGRES: &str = sandbox_sql!("to_char(r.created_at at time zone 'UTC', 'YYYY-MM-DD')");
const SANDBOX_SQLITE: &str = sandbox_sql!("strftime('%Y-%m-%d', r.created_at)");
const OWNER_POSTGRES: &str = owner_sql!("to_char(r.created_at at time zone 'UTC', 'YYYY-MM-DD')");
const OWNER_SQLITE: &str = owner_sql!("strftime('%Y-%m-%d', r.created_at)");

#[derive(sqlx::FromRow)]
struct Row {
    agent_key: String,
    trigger_key: String,
    model_key: String,
    status_key: String,
    entrance_key: String,
    day_key: String,
    runs: i64,
    tokens_in: i64,
    tokens_out: i64,
    cost_microcents: i64,
    runs_without_price: i64,
    model_calls: i64,
    all_runs: i64,
    all_tokens_in: i64,
    all_tokens_out: i64,
    all_cost_microcents: i64,
    all_runs_without_price: i64,
    all_model_calls: i64,
}

impl Row {
    fn total(&self) -> Sums {
        Sums {
            runs: self.all_runs,
            tokens_in: self.all_tokens_in,
            tokens_out: self.all_tokens_out,
            cost_microcents: self.all_cost_microcents,
            runs_without_price: self.all_runs_without_price,
            model_calls: self.all_model_calls,
        }
    }

    fn group(self, dimensions: &[Dimension]) -> (Vec<String>, Sums) {
        let key = |dimension: &Dimension| match dimension {
            Dimension::Agent => self.agent_key.clone(),
            Dimension::Trigger => self.trigger_key.clone(),
            Dimension::Model => self.model_key.clone(),
            Dimension::Status => self.status_key.clone(),
            Dimension::Entrance => self.entrance_key.clone(),
            Dimension::Day => self.day_key.clone(),
        };
        let keys = dimensions.iter().map(key).collect();
        let sums = Sums {
            runs: self.runs,
            tokens_in: self.tokens_in,
            tokens_out: self.tokens_out,
            cost_microcents: self.cost_microcents,
            runs_without_price: self.runs_without_price,
            model_calls: self.model_calls,
        };
        (keys, sums)
    }
}

/// Sums over the runs; without dimensions the total only.
pub(crate) async fn sum<C: AsConn>(conn: &mut C, scope: &Scope<'_>, filter: &Filter<'_>) -> Result<Usage> {
    let by = |dimension| filter.dimensions.contains(&dimension);
    let (sql, place) = match (scope, conn.dialect()) {
        (Scope::Sandbox(sandbox_id), Dialect::Postgres) => (SANDBOX_POSTGRES, sandbox_id.as_str()),
        (Scope::Sandbox(sandbox_id), Dialect::Sqlite) => (SANDBOX_SQLITE, sandbox_id.as_str()),
        (Scope::Owner(user_id), Dialect::Postgres) => (OWNER_POSTGRES, user_id.as_str()),
        (Scope::Owner(user_id), Dialect::Sqlite) => (OWNER_SQLITE, user_id.as_str()),
    };
    let rows = fetch_all!(
        *conn,
        Row,
        sql,
        by(Dimension::Agent),
        by(Dimension::Trigger),
        by(Dimension::Model),
        by(Dimension::Status),
        by(Dimension::Entrance),
        by(Dimension::Day),
        place,
        &filter.window.from,
        &filter.window.before,
        filter.agent_slug,
        filter.people_agents.is_everybody(),
        filter.people_agents.one(),
        filter.system_agents.is_everybody(),
        filter.system_agents.one(),
        filter.max_groups,
    )?;
    Ok(Usage {
        total: rows.first().map(Row::total).unwrap_or_default(),
        groups: if filter.dimensions.is_empty() {
            Vec::new()
        } else {
            rows.into_iter().map(|row| row.group(filter.dimensions)).collect()
        },
    })
}

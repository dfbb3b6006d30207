//! What runs used: sums of tokens and cost over a window, by whatever explains them.

use chrono::{DateTime, Duration, Utc};
use copass_errors::{Error, Result};
use copass_runtime::{CallContext, clock};
use copass_types::{AccessClass, ActorKind, Principal, SandboxId, UserId};

use super::{
    domain::{AD_HOC_SLUG, AgentKind, CONCIERGE_SLUG},
    id_window::{self, IdWindow},
    runs::{Runs, Visible, invalid_query, visible_to},
};
use crate::store::{
    self,
    usage::{Dimension, Of, Scope},
};

const DEFAULT_WINDOW: Duration = Duration::days(30);
const MAX_WINDOW: Duration = Duration::days(366);
/// Groups in one answer; those with fewer tokens are in the total only.
const MAX_GROUPS: i64 = 200;

/// Which runs to sum up, and by what.
#[derive(Debug, Clone, Default)]
pub(crate) struct UsageQuery {
    /// `None`: every sandbox the caller owns.
    pub(crate) sandbox_id: Option<SandboxId>,
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
    /// Words of [`Dimension`].
    pub(crate) group_by: Vec<String>,
    pub(crate) agent_slug: Option<String>,
}

/// Sums over runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) runs: i64,
    pub(crate) tokens_in: i64,
    pub(crate) tokens_out: i64,
    /// 1e-6 USD.
    pub(crate) cost_microcents: i64,
    /// Runs that are over and whose cost is not known; the cost leaves them out.
    pub(crate) runs_without_price: i64,
    pub(crate) model_calls: i64,
}

/// What runs used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Everything, groups that are not shown included.
    pub(crate) total: Sums,
    /// A key for each dimension, in the order that was asked for; most tokens first.
    pub(crate) groups: Vec<(Vec<String>, Sums)>,
}

impl Runs {
    /// Sums over the runs of a window that the caller may see.
    pub(crate) async fn aggregate_usage(&self, context: &CallContext, query: &UsageQuery) -> Result<Usage> {
        let principal = &context.principal;
        let (scope, people) = match &query.sandbox_id {
            Some(sandbox_id) => {
                let access = principal.require(sandbox_id, AccessClass::Read)?;
                let people = visible_to(AgentKind::User, principal, access);
                let system = visible_to(AgentKind::System, principal, access);
                (Scope::Sandbox(sandbox_id), [of(people), of(system)])
            }
            None => (Scope::Owner(owner(principal)?), [Of::Everybody, Of::Everybody]),
        };
        // PostgreSQL refuses to compare with such a text; no slug holds one.
        if query.agent_slug.as_deref().is_some_and(|slug| slug.contains('\0')) {
            return Err(Error::not_found("agent"));
        }
        let dimensions = dimensions(&query.group_by)?;
        let window = window(query)?;
        let mut conn = self.db.read().await?;
        if let (Some(sandbox_id), Some(slug)) = (&query.sandbox_id, query.agent_slug.as_deref())
            && ![CONCIERGE_SLUG, AD_HOC_SLUG].contains(&slug)
        {
            let agent = store::agents::find(&mut conn, sandbox_id, slug).await?;
            if agent.is_none() || matches!(people[0], Of::Nobody) {
                return Err(Error::not_found("agent"));
            }
        }
        let filter = store::usage::Filter {
            window: &window,
            dimensions: &dimensions,
            agent_slug: query.agent_slug.as_deref(),
            people_agents: people[0],
            system_agents: people[1],
            max_groups: MAX_GROUPS,
        };
        store::usage::sum(&mut conn, &scope, &filter).await
    }
}

/// The account whose sandboxes are summed up. Keys that are good for one grant or one agent do not speak for an account.
fn owner(principal: &Principal) -> Result<&UserId> {
    let is_general = matches!(principal.kind, ActorKind::Session | ActorKind::ApiKey)
        && principal.agent_key.is_none()
        && principal.only_sandbox.is_none();
    principal.user_id.as_ref().filter(|_| is_general).ok_or_else(|| {
        Error::forbidden("this credential is good for one sandbox only; name the sandbox, or use a general credential")
    })
}

fn of(visible: Visible<'_>) -> Of<'_> {
    match visible {
        Visible::All => Of::Everybody,
        Visible::Of(user_id) => Of::One(user_id),
        Visible::Nothing => Of::Nobody,
    }
}

fn dimensions(words: &[String]) -> Result<Vec<Dimension>> {
    let mut dimensions = Vec::new();
    for word in words {
        let dimension = Dimension::from_text(word).filter(|dimension| !dimensions.contains(dimension));
        dimensions.push(dimension.ok_or_else(|| {
            invalid_query(
                "group_by",
                "may hold agent, trigger, model, status, entrance and day, each once",
            )
        })?);
    }
    Ok(dimensions)
}

fn window(query: &UsageQuery) -> Result<IdWindow> {
    let until = query.until.unwrap_or_else(clock::now);
    let since = match query.since {
        Some(since) => since,
        None => until
            .checked_sub_signed(DEFAULT_WINDOW)
            .ok_or_else(|| invalid_query("until", "must be a date of our calendar"))?,
    };
    id_window::check_order(Some(since), Some(until))?;
    if until - since > MAX_WINDOW {
        return Err(invalid_query("since", "must be at most 366 days before until"));
    }
    Ok(IdWindow::new(Some(since), Some(until)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_month_unless_said_otherwise_and_a_year_at_most() {
        let at = |text: &str| Some(text.parse::<DateTime<Utc>>().expect("an instant"));
        let query = |since, until| UsageQuery {
            since,
            until,
            ..UsageQuery::default()
        };
        let until = at("2026-11-21T00:00:00Z");
        assert_eq!(
            window(&query(None, until)).expect("a window"),
            IdWindow::new(at("2026-10-22T00:00:00Z"), until)
        );
        assert!(window(&query(at("2025-11-20T00:00:00Z"), until)).is_ok());
        assert!(window(&query(at("2025-11-19T23:59:59Z"), until)).is_err());
        assert!(window(&query(until, until)).is_err());
        assert!(window(&query(at("2100-01-01T00:00:00Z"), None)).is_err());
        assert!(window(&query(None, Some(DateTime::<Utc>::MIN_UTC))).is_err());
    }
}

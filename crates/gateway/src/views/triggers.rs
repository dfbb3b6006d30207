//! Triggers.

use copass_errors::Result;
use copass_proto::trigger as proto;
use copass_types::api;

use super::{instant, object};

pub(crate) fn trigger(trigger: proto::Trigger) -> Result<api::Trigger> {
    Ok(api::Trigger {
        trigger_id: trigger.trigger_id,
        user_id: trigger.user_id,
        sandbox_id: trigger.sandbox_id,
        agent_id: trigger.agent_id,
        data_source_id: trigger.data_source_id,
        event_type_filter: trigger.event_type_filter,
        filter_config: trigger.filter_config_json.map(|text| object(&text)).transpose()?,
        status: trigger.status,
        rate_limit_per_hour: trigger.rate_limit_per_hour,
        last_fired_at: instant(trigger.last_fired_at),
        fire_count: trigger.fire_count,
        created_at: instant(trigger.created_at),
        updated_at: instant(trigger.updated_at),
    })
}

pub(crate) fn list(agent_slug: String, list: proto::ListTriggersResponse) -> Result<api::TriggerList> {
    let triggers = super::each(list.triggers, trigger)?;
    Ok(api::TriggerList {
        agent_slug,
        count: triggers.len(),
        triggers,
    })
}

//! What runs without being asked: the consumer of tenancy news, the heartbeat and the reaper.

pub(crate) mod heartbeat;
pub(crate) mod reaper;
pub(crate) mod tenancy;

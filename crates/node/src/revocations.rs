//! Feeds the gateway's cache of credentials: what the concierge revokes is forgotten at once, and while the feed is cut
//! nothing is remembered (`design.md` 9).

use std::{sync::Arc, time::Duration};

use copass_gateway::AuthCache;
use copass_queue::{Event, Queue, TopicName};
use tokio_util::sync::CancellationToken;

const TOPIC: TopicName = TopicName::from_static(copass_concierge::REVOKED_TOPIC);
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn follow(queue: Arc<dyn Queue>, cache: AuthCache, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            outcome = follow_once(queue.as_ref(), &cache) => {
                cache.set_trusted(false);
                tracing::warn!(error = outcome, "the revocation feed ended; credentials are verified at each call");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn follow_once(queue: &dyn Queue, cache: &AuthCache) -> String {
    let mut subscription = match queue.subscribe(&TOPIC).await {
        Ok(subscription) => subscription,
        Err(error) => return error.to_string(),
    };
    loop {
        match subscription.receive().await {
            Ok(Event::Connected) => {
                cache.invalidate_all();
                cache.set_trusted(true);
            }
            Ok(Event::Disconnected) => cache.set_trusted(false),
            Ok(Event::Lagged { .. }) => cache.invalidate_all(),
            Ok(Event::Message(message)) => forget(cache, &message.body),
            Err(error) => return error.to_string(),
        }
    }
}

fn forget(cache: &AuthCache, body: &serde_json::Value) {
    let text = |name: &str| body.get(name).and_then(serde_json::Value::as_str);
    match (text("user_id"), text("sandbox_id")) {
        (None, None) => cache.invalidate_all(),
        (user_id, sandbox_id) => {
            if let Some(user_id) = user_id {
                cache.invalidate_user(user_id);
            }
            if let Some(sandbox_id) = sandbox_id {
                cache.invalidate_sandbox(sandbox_id);
            }
        }
    }
}

//! The Concierge (`rest.md` 15).

use std::time::Duration;

use copass_types::api::{ConciergeChatRequest, ConciergeTestRequest, ConciergeTestResponse};
use reqwest::{Method, header::HeaderValue};

use crate::{ChatStream, Client, Reply, Result, call::Call};

/// A turn may take as long as a run may; the server ends it first.
const TURN_TIMEOUT: Duration = Duration::from_secs(15 * 60);

#[allow(clippy::missing_errors_doc, reason = "the module says once how every method fails")]
impl Client {
    /// `POST …/concierge/test`: one turn, answered when it is over.
    pub async fn concierge_test(
        &self,
        sandbox_id: &str,
        body: &ConciergeTestRequest,
    ) -> Result<Reply<ConciergeTestResponse>> {
        let call = Call::sandboxes(self, Method::POST, &[sandbox_id, "concierge", "test"])?.json(body)?;
        self.send(call.timeout(Some(TURN_TIMEOUT))).await
    }

    /// `POST …/concierge/chat`: one turn as a stream. Dropping the stream cancels the run.
    pub async fn concierge_chat(&self, sandbox_id: &str, body: &ConciergeChatRequest) -> Result<ChatStream> {
        let call = Call::sandboxes(self, Method::POST, &[sandbox_id, "concierge", "chat"])?
            .json(body)?
            .header("accept", HeaderValue::from_static("text/event-stream"))
            .timeout(None);
        ChatStream::new(self.open(call).await?)
    }
}

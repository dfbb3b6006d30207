//! gRPC on one side, the application on the other; converts and nothing else.

use copass_errors::Error;
use copass_proto::{
    convert::{id, timestamp},
    trigger::{self as proto, trigger_service_server::TriggerService},
};
use copass_runtime::{CallContext, grpc::failed};
use tonic::{Request, Response, Status};

use crate::app::triggers::{Trigger, Triggers};

/// Serves `copass.trigger.v1.TriggerService`.
#[derive(Debug)]
pub(crate) struct TriggerGrpc {
    triggers: Triggers,
}

impl TriggerGrpc {
    pub(crate) fn new(triggers: Triggers) -> Self {
        Self { triggers }
    }

    async fn list(&self, request: Request<proto::ListTriggersRequest>) -> Result<Vec<Trigger>, Error> {
        let principal = CallContext::of(&request)?.principal;
        let request = request.into_inner();
        let sandbox_id = id(&request.sandbox_id, "sandbox")?;
        self.triggers
            .list(&principal, &sandbox_id, &request.agent_id, request.status.as_deref())
            .await
    }

    async fn get(&self, request: Request<proto::GetTriggerRequest>) -> Result<Trigger, Error> {
        let principal = CallContext::of(&request)?.principal;
        let request = request.into_inner();
        let sandbox_id = id(&request.sandbox_id, "sandbox")?;
        self.triggers
            .get(&principal, &sandbox_id, &request.agent_id, &request.trigger_id)
            .await
    }
}

#[tonic::async_trait]
impl TriggerService for TriggerGrpc {
    async fn list_triggers(
        &self,
        request: Request<proto::ListTriggersRequest>,
    ) -> Result<Response<proto::ListTriggersResponse>, Status> {
        let triggers = self.list(request).await.map_err(failed)?;
        let triggers = triggers.into_iter().map(proto::Trigger::from).collect();
        Ok(Response::new(proto::ListTriggersResponse { triggers }))
    }

    async fn get_trigger(
        &self,
        request: Request<proto::GetTriggerRequest>,
    ) -> Result<Response<proto::Trigger>, Status> {
        self.get(request)
            .await
            .map(|trigger| Response::new(trigger.into()))
            .map_err(failed)
    }
}

impl From<Trigger> for proto::Trigger {
    fn from(trigger: Trigger) -> Self {
        Self {
            trigger_id: trigger.id.into(),
            user_id: trigger.user_id.into(),
            sandbox_id: trigger.sandbox_id.into(),
            agent_id: trigger.agent_id.into(),
            data_source_id: trigger.data_source_id.into(),
            event_type_filter: trigger.event_type_filter,
            filter_config_json: trigger.filter_config.map(|config| config.to_string()),
            status: trigger.status.as_str().to_owned(),
            rate_limit_per_hour: trigger.rate_limit_per_hour,
            last_fired_at: trigger.last_fired_at.map(timestamp),
            fire_count: trigger.fire_count,
            created_at: Some(timestamp(trigger.created_at)),
            updated_at: Some(timestamp(trigger.updated_at)),
        }
    }
}

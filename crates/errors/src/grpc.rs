//! Errors over gRPC: the code and details travel in metadata, so that nothing is lost between services.

use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use crate::{Error, ErrorCode, FieldProblem};

const DETAILS_KEY: &str = "copass-error-bin";

#[derive(Serialize, Deserialize)]
struct Details {
    code: String,
    detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    problems: Vec<FieldProblem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let mut status = Status::new(error.code.grpc_code(), error.to_string());
        let details = Details {
            code: error.code.as_str().to_owned(),
            detail: error.detail,
            problems: error.problems,
            retry_after_s: error.retry_after_s,
        };
        // Serialising plain strings cannot fail; if it did, the status text still says what happened.
        if let Ok(json) = serde_json::to_vec(&details) {
            let value = tonic::metadata::BinaryMetadataValue::from_bytes(&json);
            status.metadata_mut().insert_bin(DETAILS_KEY, value);
        }
        status
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        let details = status
            .metadata()
            .get_bin(DETAILS_KEY)
            .and_then(|value| value.to_bytes().ok())
            .and_then(|bytes| serde_json::from_slice::<Details>(&bytes).ok());
        if let Some(details) = details
            && let Some(code) = ErrorCode::from_text(&details.code)
        {
            return Error {
                code,
                detail: details.detail,
                problems: details.problems,
                retry_after_s: details.retry_after_s,
                source: None,
            };
        }
        match status.code() {
            Code::Unavailable => Error::unavailable(status),
            Code::DeadlineExceeded => Error::new(
                ErrorCode::DeadlineExceeded,
                "the operation took longer than allowed; try again with less work in one call",
            ),
            Code::Cancelled => Error::new(ErrorCode::Cancelled, "the call was cancelled"),
            _ => Error::internal(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_detail_problems_and_retry_survive_the_wire() {
        let error = Error::invalid(vec![FieldProblem::body("name", "must not be empty — ä")]).with_retry_after_s(7);
        let back = Error::from(Status::from(error));
        assert_eq!(back.code(), ErrorCode::ValidationError);
        assert_eq!(back.problems()[0].loc, ["body", "name"]);
        assert_eq!(back.retry_after_s(), Some(7));
    }

    #[test]
    fn the_internal_cause_stays_inside() {
        let status = Status::from(Error::internal(std::io::Error::other("password=hunter2")));
        assert!(!format!("{status:?}").contains("hunter2"));
    }

    #[test]
    fn foreign_statuses_get_a_code() {
        assert_eq!(Error::from(Status::unavailable("x")).code(), ErrorCode::Unavailable);
        assert_eq!(Error::from(Status::unknown("x")).code(), ErrorCode::InternalError);
    }
}

//! The one body of every error (`rest.md` 0.3).

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `{error, detail, request_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The machine word.
    pub error: String,
    /// A sentence that names the next step, or for 422 the list of problems.
    pub detail: ErrorDetail,
    /// Quote it when asking for help.
    #[serde(default)]
    pub request_id: String,
}

/// Text, or for `validation_error` a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ErrorDetail {
    /// A sentence.
    Text(String),
    /// Every problem of the request's shape.
    Problems(Vec<FieldProblem>),
}

impl fmt::Display for ErrorDetail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Problems(problems) => {
                for (index, problem) in problems.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(formatter, "{separator}{}: {}", problem.loc.join("."), problem.msg)?;
                }
                Ok(())
            }
        }
    }
}

/// One problem of the request's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// Where, for example `["body", "name"]`.
    pub loc: Vec<String>,
    /// What is wrong.
    pub msg: String,
    /// A machine word.
    #[serde(rename = "type")]
    pub kind: String,
}

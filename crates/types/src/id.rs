//! Identifiers: newtypes over text, `<prefix>_` + 26 characters of a time-ordered id (`rest.md` 0.4, `design.md` 5).
//!
//! Ids are opaque to clients. A malformed id in a path is treated exactly like an unknown one (404), so parsing never
//! distinguishes "cannot exist" from "does not exist" on the wire.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("not a valid {kind} id")]
pub struct InvalidId {
    /// The kind that was expected, for example `sandbox`.
    pub kind: &'static str,
}

const TEXT_LENGTH: usize = 26;

/// The order of ids is the order of lists, of the audit log and of the outbox, so two ids of one millisecond must not
/// come in any order; a fresh random half would do that.
static GENERATOR: Mutex<ulid::Generator> = Mutex::new(ulid::Generator::new());

fn next_ulid() -> ulid::Ulid {
    let mut generator = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    match generator.generate() {
        Ok(id) => id,
        Err(overflow) => overflow.commit_overflow_increment(),
    }
}

/// Nobody who knows other ids can guess it; of two made in one millisecond either may come first.
fn unguessable_ulid() -> ulid::Ulid {
    ulid::Ulid::generate()
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        text_id!($(#[$doc])* $name, $prefix, $kind, next_ulid, "later than every id this process has made before");
    };
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal, $next:path, $promise:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The prefix with its underscore.
            pub const PREFIX: &'static str = concat!($prefix, "_");

            #[doc = concat!("A new id, ", $promise, ".")]
            #[must_use]
            pub fn generate() -> Self {
                Self(format!(concat!($prefix, "_{}"), $next()))
            }

            /// The millisecond in which it was generated; `None` for an id that was made elsewhere and tells none.
            #[must_use]
            pub fn generated_at(&self) -> Option<DateTime<Utc>> {
                let ulid: ulid::Ulid = self.0.get(Self::PREFIX.len()..)?.parse().ok()?;
                DateTime::from_timestamp_millis(i64::try_from(ulid.timestamp_ms()).ok()?)
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = InvalidId { kind: $kind };
                let rest = text.strip_prefix(Self::PREFIX).ok_or_else(|| invalid.clone())?;
                if rest.len() == TEXT_LENGTH && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(invalid)
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A sandbox, `sb_…`.
    SandboxId, "sb", "sandbox"
);
text_id!(
    /// A data source, `ds_…`.
    DataSourceId, "ds", "data source"
);
text_id!(
    /// An agent, `ag_…`.
    AgentId, "ag", "agent"
);
text_id!(
    /// A trigger, `tr_…`.
    TriggerId, "tr", "trigger"
);
text_id!(
    /// A run, `rn_…`.
    RunId, "rn", "run"
);
text_id!(
    /// A sandbox connection (grant), `cn_…`.
    ConnectionId, "cn", "connection"
);
text_id!(
    /// An API key, `ak_…` (the id, not the secret).
    ApiKeyId, "ak", "API key"
);
text_id!(
    /// A project, `pj_…`.
    ProjectId, "pj", "project"
);
text_id!(
    /// An event, `ev_…`.
    EventId, "ev", "event"
);
text_id!(
    /// A conversation, `sess_…`. Whoever continues one names it, so it must not be found by trying.
    SessionId, "sess", "session", unguessable_ulid, "that nobody who knows others can guess"
);
text_id!(
    /// A step of a run, `st_…`.
    StepId, "st", "step"
);
text_id!(
    /// A queue message, `mg_…`.
    MessageId, "mg", "message"
);
text_id!(
    /// An audit record, `au_…`.
    AuditId, "au", "audit record"
);

/// A person's account: a UUID (`rest.md` 0.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(String);

impl UserId {
    /// A new, time-ordered user id.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        uuid::Uuid::parse_str(text)
            .map(|id| Self(id.to_string()))
            .map_err(|_| InvalidId { kind: "user" })
    }
}

impl TryFrom<String> for UserId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> String {
        id.0
    }
}

impl AsRef<str> for UserId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_and_keeps_its_prefix() {
        let id = SandboxId::generate();
        assert!(id.as_str().starts_with("sb_"));
        assert_eq!(id.as_str().len(), 29);
        assert_eq!(id.as_str().parse::<SandboxId>().unwrap(), id);
    }

    #[test]
    fn ids_of_one_process_are_in_order() {
        let ids: Vec<AuditId> = (0..10_000).map(|_| AuditId::generate()).collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn foreign_prefixes_and_wrong_lengths_are_refused() {
        let agent = AgentId::generate().to_string();
        assert!(agent.parse::<SandboxId>().is_err());
        assert!("sb_".parse::<SandboxId>().is_err());
        assert!("sb_short".parse::<SandboxId>().is_err());
        assert!("sb_01J9Z00000000000000000/../x".parse::<SandboxId>().is_err());
        assert!(serde_json::from_str::<SandboxId>("\"nope\"").is_err());
    }

    #[test]
    fn a_user_id_is_a_uuid() {
        assert!(UserId::generate().as_str().parse::<UserId>().is_ok());
        assert!("alice".parse::<UserId>().is_err());
    }
}

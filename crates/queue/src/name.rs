//! Names of queues and topics. Newtypes, so that a topic cannot be consumed and a message kind cannot be a queue.

use std::borrow::Cow;
use std::fmt;

use crate::Error;

/// AMQP allows 255 bytes; the rest is for a prefix and for `.retry.<step>`.
const MAX_LEN: usize = 150;

const fn is_valid(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_LEN {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        if !matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_') {
            return false;
        }
        i += 1;
    }
    bytes[0] != b'.' && bytes[bytes.len() - 1] != b'.'
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Cow<'static, str>);

        impl $name {
            /// Checks and takes a name that is only known at run time.
            pub fn new(name: impl Into<String>) -> Result<Self, Error> {
                let name = name.into();
                if is_valid(&name) { Ok(Self(Cow::Owned(name))) } else { Err(Error::InvalidName { name }) }
            }

            /// For constants: a bad name does not compile (called in a `const`) or panics.
            pub const fn from_static(name: &'static str) -> Self {
                assert!(is_valid(name), "not a valid name");
                Self(Cow::Borrowed(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a work queue, by convention `copass.<service>.<task>`.
    ///
    /// ```
    /// use copass_queue::QueueName;
    /// const RUNS: QueueName = QueueName::from_static("copass.agent-runner.runs");
    /// assert!(QueueName::new("No spaces, please").is_err());
    /// ```
    QueueName
}

name! {
    /// The name of a topic, by convention `copass.<service>.<news>`.
    TopicName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["copass.gateway.frames", "a", "copass.trigger-dispatcher.events_v2"] {
            assert_eq!(QueueName::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "Upper",
            "with space",
            ".dot",
            "dot.",
            "star*",
            "ümlaut",
            &"x".repeat(151),
        ] {
            assert!(matches!(TopicName::new(bad), Err(Error::InvalidName { .. })), "{bad}");
        }
    }
}

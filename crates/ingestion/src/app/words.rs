//! The closed words of a data source (`rest.md` 8.A). The words in the database are the words of the API.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every word, for the sentence that lists them.
            const WORDS: &'static [&'static str] = &[$($text,)*];

            /// The word.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value of a word, or the sentence that lists the words there are.
            pub(crate) fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(format!("must be one of {}", Self::WORDS.join(", "))),
                }
            }
        }
    )*};
}

words! {
    /// How content comes in.
    IngestionMode {
        /// Only when somebody pushes it.
        Manual = "manual",
        /// Fetched every so often.
        Polling = "polling",
        /// Delivered by webhook.
        Realtime = "realtime",
        /// In bulk.
        Batch = "batch",
    }

    /// What state a source is in.
    SourceStatus {
        /// Takes content.
        Active = "active",
        /// Keeps its data and takes nothing.
        Paused = "paused",
        /// Its credentials are gone, its data is kept.
        Disconnected = "disconnected",
        /// Its provider does not answer as it should.
        Error = "error",
        /// Closed.
        Archived = "archived",
    }

    /// How long its content is meant to live.
    SourceKind {
        /// Until it is removed.
        Durable = "durable",
        /// As long as a conversation.
        Ephemeral = "ephemeral",
    }
}

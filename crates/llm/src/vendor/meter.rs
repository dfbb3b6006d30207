//! Reading the wire beside the library: usage, size, and why Google refused a prompt.
//!
//! The library reports usage in OpenAI's sense (cached tokens within the input) and loses parts of it: Anthropic's
//! thinking tokens in streams, a usage that comes with an empty choice, Google's when the last frame has none. Money is
//! counted with these numbers, so they are read from the frames themselves, in the terms of the port.

use genai::chat::{ChatFrameSink, FrameCtx, RawFrameRef};
use parking_lot::Mutex;
use serde_json::Value;

use crate::port::Usage;

use super::{Backend, calls::Calls};

/// What one stream has shown so far.
#[derive(Debug)]
pub(super) struct Meter {
    backend: Backend,
    readings: Mutex<Readings>,
}

#[derive(Debug, Default)]
struct Readings {
    usage: Usage,
    /// What was told of it already.
    told: Usage,
    bytes: usize,
    has_data: bool,
    refusal: Option<String>,
    calls: Calls,
}

impl Meter {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            readings: Mutex::default(),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        self.readings.lock().usage
    }

    /// Usage so far, where it changed since it was last asked for.
    pub(super) fn news(&self) -> Option<Usage> {
        let mut readings = self.readings.lock();
        let usage = readings.usage;
        (std::mem::replace(&mut readings.told, usage) != usage).then_some(usage)
    }

    /// Bytes of events so far.
    pub(super) fn bytes(&self) -> usize {
        self.readings.lock().bytes
    }

    /// Whether there was any event at all.
    pub(super) fn has_data(&self) -> bool {
        self.readings.lock().has_data
    }

    /// What the server did that no server may.
    pub(super) fn fault(&self) -> Option<String> {
        self.readings.lock().calls.fault().map(str::to_owned)
    }

    /// The calls of an answer in OpenAI's format that is at its end.
    pub(super) fn take_calls(&self) -> Vec<genai::chat::ToolCall> {
        std::mem::take(&mut self.readings.lock().calls).finish()
    }

    /// Why Google refused the prompt, where it did.
    pub(super) fn refusal(&self) -> Option<String> {
        self.readings.lock().refusal.clone()
    }
}

impl ChatFrameSink for Meter {
    fn on_frame(&self, _context: &FrameCtx, frame: RawFrameRef<'_>) {
        let mut readings = self.readings.lock();
        readings.bytes = readings.bytes.saturating_add(frame.data.len());
        readings.has_data |= !frame.data.is_empty();
        match self.backend {
            Backend::Anthropic => readings.anthropic(frame.event, frame.data),
            Backend::Google => readings.google(frame.data),
            Backend::Hermes => readings.hermes(frame.data),
        }
    }
}

impl Readings {
    /// Counts are those of the whole answer so far, and a later event may repeat only some of them.
    fn anthropic(&mut self, event: Option<&str>, data: &str) {
        let place = match event {
            Some("message_start") => "/message/usage",
            Some("message_delta") => "/usage",
            _ => return,
        };
        let Ok(frame) = serde_json::from_str::<Value>(data) else {
            return;
        };
        let Some(told) = frame.pointer(place) else { return };
        for (reading, place) in [
            (&mut self.usage.input_tokens, "/input_tokens"),
            (&mut self.usage.output_tokens, "/output_tokens"),
            (&mut self.usage.cache_read_input_tokens, "/cache_read_input_tokens"),
            (
                &mut self.usage.cache_creation_input_tokens,
                "/cache_creation_input_tokens",
            ),
            (
                &mut self.usage.thinking_tokens,
                "/output_tokens_details/thinking_tokens",
            ),
        ] {
            if let Some(count) = count(told, place) {
                *reading = count;
            }
        }
    }

    /// The prompt's count holds what came from the cache; the candidates' does not hold the thoughts. Each frame tells
    /// all of them, and leaves out what is zero.
    fn google(&mut self, data: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(data) else {
            return;
        };
        if let Some(reason) = frame.pointer("/promptFeedback/blockReason").and_then(Value::as_str) {
            self.refusal = Some(reason.to_owned());
        }
        let Some(told) = frame.get("usageMetadata") else { return };
        let prompt = count(told, "/promptTokenCount");
        let candidates = count(told, "/candidatesTokenCount");
        let thoughts = count(told, "/thoughtsTokenCount");
        if prompt.or(candidates).or(thoughts).is_none() {
            return;
        }
        let cached = count(told, "/cachedContentTokenCount").unwrap_or_default();
        let used = count(told, "/toolUsePromptTokenCount").unwrap_or_default();
        let thoughts = thoughts.unwrap_or_default();
        self.usage = Usage {
            input_tokens: prompt.unwrap_or_default().saturating_add(used).saturating_sub(cached),
            output_tokens: candidates.unwrap_or_default().saturating_add(thoughts),
            cache_read_input_tokens: cached,
            cache_creation_input_tokens: 0,
            thinking_tokens: thoughts,
        };
    }

    /// Some servers send usage with every chunk, some with the last, some with one that has no choice; the last counts.
    fn hermes(&mut self, data: &str) {
        // Most frames hold neither, and need not be read twice.
        if !data.contains("\"usage\"") && !data.contains("\"tool_calls\"") {
            return;
        }
        let Ok(frame) = serde_json::from_str::<Value>(data) else {
            return;
        };
        self.calls.take(&frame);
        let Some(told) = frame.get("usage") else { return };
        let prompt = count(told, "/prompt_tokens");
        let completion = count(told, "/completion_tokens");
        if prompt.or(completion).is_none() {
            return;
        }
        let (prompt, completion) = (prompt.unwrap_or_default(), completion.unwrap_or_default());
        // What routers and servers of others call the same things.
        let read =
            count(told, "/prompt_tokens_details/cached_tokens").or_else(|| count(told, "/prompt_cache_hit_tokens"));
        let read = read.unwrap_or_default();
        let written = count(told, "/prompt_tokens_details/cache_write_tokens");
        let written = written.or_else(|| count(told, "/cache_creation_input_tokens"));
        let written = written.unwrap_or_default();
        let thinking = count(told, "/completion_tokens_details/reasoning_tokens").unwrap_or_default();
        // Some count thoughts beside the completion; the total tells.
        let is_beside = thinking > 0
            && count(told, "/total_tokens") == Some(prompt.saturating_add(completion).saturating_add(thinking));
        self.usage = Usage {
            input_tokens: prompt.saturating_sub(read).saturating_sub(written),
            output_tokens: if is_beside {
                completion.saturating_add(thinking)
            } else {
                completion
            },
            cache_read_input_tokens: read,
            cache_creation_input_tokens: written,
            thinking_tokens: thinking,
        };
    }
}

/// A count of tokens, each read on its own, so that one that cannot be read takes no other with it. Whole numbers with a
/// decimal point are whole numbers; more than any answer can have is cut, because sums over many runs must hold it.
fn count(told: &Value, place: &str) -> Option<u64> {
    let number = told.pointer(place)?.as_number()?;
    let count = match (number.as_u64(), number.as_f64()) {
        (Some(count), _) => count,
        // The conversion of a float is exact for whole numbers and stops at the largest.
        (None, Some(float)) if float >= 0.0 && float.fract() == 0.0 => float as u64,
        _ => return None,
    };
    Some(count.min(Usage::MAX_COUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64, read: u64, created: u64, thinking: u64) -> Usage {
        Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_input_tokens: read,
            cache_creation_input_tokens: created,
            thinking_tokens: thinking,
        }
    }

    #[test]
    fn anthropic_counts_are_cumulative_and_may_be_partial() {
        let mut readings = Readings::default();
        let start = r#"{"message":{"usage":{"input_tokens":12,"cache_creation_input_tokens":30,"cache_read_input_tokens":700,"output_tokens":1}}}"#;
        readings.anthropic(Some("message_start"), start);
        readings.anthropic(Some("content_block_delta"), r#"{"usage":{"input_tokens":9}}"#);
        // Only some counts are repeated: the others hold.
        let delta =
            r#"{"usage":{"input_tokens":12,"output_tokens":90,"output_tokens_details":{"thinking_tokens":40}}}"#;
        readings.anthropic(Some("message_delta"), delta);
        assert_eq!(readings.usage, usage(12, 90, 700, 30, 40));
    }

    #[test]
    fn google_counts_the_cache_within_and_thoughts_beside() {
        let mut readings = Readings::default();
        readings.google(
            r#"{"usageMetadata":{"promptTokenCount":696219,"cachedContentTokenCount":696190,"thoughtsTokenCount":7}}"#,
        );
        assert_eq!(readings.usage, usage(29, 7, 696_190, 0, 7));
        readings.google(r#"{"usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":5,"thoughtsTokenCount":7,"toolUsePromptTokenCount":2}}"#);
        // A last frame without usage takes nothing away.
        readings.google(r#"{"candidates":[{"finishReason":"STOP"}]}"#);
        assert_eq!(readings.usage, usage(12, 12, 0, 0, 7));
    }

    #[test]
    fn openai_counts_everything_within_and_is_read_wherever_it_comes() {
        let mut readings = Readings::default();
        readings.hermes(r#"{"choices":[{"delta":{"content":"\"usage\""}}],"usage":null}"#);
        assert_eq!(readings.usage, Usage::default());
        readings.hermes(r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":64,"cache_write_tokens":6},"completion_tokens_details":{"reasoning_tokens":20}}}"#);
        assert_eq!(readings.usage, usage(30, 50, 64, 6, 20));
        readings.hermes(r#"{"choices":[],"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":137,"prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":96}}}"#);
        assert_eq!(readings.usage, usage(32, 105, 0, 0, 96));
    }

    #[test]
    fn each_count_is_read_on_its_own() {
        let mut readings = Readings::default();
        readings.anthropic(
            Some("message_start"),
            r#"{"message":{"usage":{"input_tokens":1000.0,"output_tokens":"1","cache_read_input_tokens":-5,"cache_creation_input_tokens":1.5,"output_tokens_details":7}}}"#,
        );
        assert_eq!(readings.usage, usage(1000, 0, 0, 0, 0));
        let mut readings = Readings::default();
        readings
            .google(r#"{"usageMetadata":{"promptTokenCount":10.0,"candidatesTokenCount":{},"thoughtsTokenCount":7}}"#);
        assert_eq!(readings.usage, usage(10, 7, 0, 0, 7));
        readings.google(r#"{"usageMetadata":{"promptTokenCount":"ten"}}"#);
        assert_eq!(readings.usage, usage(10, 7, 0, 0, 7));
        let mut readings = Readings::default();
        readings.hermes(r#"{"usage":{"prompt_tokens":3e2,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":"64"},"completion_tokens_details":[]}}"#);
        assert_eq!(readings.usage, usage(300, 5, 0, 0, 0));
    }

    #[test]
    fn no_answer_has_more_tokens_than_fit_into_sums() {
        let mut readings = Readings::default();
        readings.hermes(r#"{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":1e300}}"#);
        assert_eq!(readings.usage, usage(Usage::MAX_COUNT, Usage::MAX_COUNT, 0, 0, 0));
        assert!(readings.usage.is_implausible());
    }
}

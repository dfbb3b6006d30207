//! The tool calls of an answer in OpenAI's format, from their pieces.
//!
//! The library would make room for as many calls as a server's `index` says, and would lose calls of servers that number
//! or name theirs in ways of their own. So it does not collect them; they are put together here, from the frames: the
//! index tells which call a piece belongs to, and without one its id or its place. A piece that cannot go on with its
//! call begins a new one, because a call that is made twice is told to the model and one that is lost is not.

use serde_json::Value;

/// An answer has at most so many calls.
const MAX_CALLS: usize = 64;
/// All calls of an answer together are not longer.
const MAX_BYTES: usize = 1024 * 1024;

/// The calls so far.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    bytes: usize,
    /// What the server did that no server may; nothing is collected from then on.
    fault: Option<String>,
}

#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    scan: Scan,
}

/// One piece of a call.
struct Piece<'a> {
    index: Option<u64>,
    id: &'a str,
    name: &'a str,
    arguments: &'a str,
}

impl Calls {
    /// Takes the pieces of a frame.
    pub(super) fn take(&mut self, frame: &Value) {
        let pieces = frame.pointer("/choices/0/delta/tool_calls").and_then(Value::as_array);
        let Some(pieces) = pieces else { return };
        for (position, piece) in pieces.iter().enumerate() {
            if self.fault.is_some() {
                return;
            }
            let function = &piece["function"];
            // Some servers send an object instead of its text.
            let object = match &function["arguments"] {
                Value::Null | Value::String(_) => None,
                other => Some(other.to_string()),
            };
            let piece = Piece {
                index: piece["index"].as_u64(),
                id: piece["id"].as_str().unwrap_or_default(),
                name: function["name"].as_str().unwrap_or_default(),
                arguments: object
                    .as_deref()
                    .or_else(|| function["arguments"].as_str())
                    .unwrap_or_default(),
            };
            self.add(&piece, pieces.len() - position);
        }
    }

    /// `from_end` is the place of a piece in its frame, counted from the last.
    fn add(&mut self, piece: &Piece<'_>, from_end: usize) {
        self.bytes = self
            .bytes
            .saturating_add(piece.id.len() + piece.name.len() + piece.arguments.len());
        if self.bytes > MAX_BYTES {
            self.fail(format!("sent tool calls of more than {MAX_BYTES} bytes in one answer"));
            return;
        }
        let known = match piece.index {
            Some(index) => self.calls.iter().rposition(|call| call.index == Some(index)),
            None if !piece.id.is_empty() => self.calls.iter().rposition(|call| call.id == piece.id),
            // Nothing tells: a name begins a call, and anything else goes on with the last ones in their order.
            None if !piece.name.is_empty() => None,
            None => self.calls.len().checked_sub(from_end),
        };
        let known = known.filter(|place| self.calls.get(*place).is_some_and(|call| call.goes_on_with(piece)));
        let place = known.unwrap_or_else(|| {
            self.calls.push(Call {
                index: piece.index,
                ..Call::default()
            });
            self.calls.len() - 1
        });
        if self.calls.len() > MAX_CALLS {
            self.fail(format!("sent more than {MAX_CALLS} tool calls in one answer"));
            return;
        }
        if let Some(call) = self.calls.get_mut(place) {
            call.take(piece);
        }
    }

    fn fail(&mut self, fault: String) {
        self.calls = Vec::new();
        self.fault = Some(fault);
    }

    /// What the server did that no server may.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The calls in the order in which they began, in the library's form. Arguments that are not JSON stay text.
    pub(super) fn finish(self) -> Vec<genai::chat::ToolCall> {
        let whole = |call: Call| genai::chat::ToolCall {
            call_id: call.id,
            fn_name: call.name,
            fn_arguments: serde_json::from_str(&call.arguments).unwrap_or(Value::String(call.arguments)),
            thought_signatures: None,
        };
        self.calls.into_iter().map(whole).collect()
    }
}

impl Call {
    /// Whether a piece of the same index, id or place belongs to this call. Only one with a name can begin another:
    /// there are servers that give every piece an id of its own.
    fn goes_on_with(&self, piece: &Piece<'_>) -> bool {
        if piece.name.is_empty() || self.name.is_empty() && self.id.is_empty() {
            return true;
        }
        let is_other_id = !piece.id.is_empty() && piece.id != self.id;
        let is_other_name = !self.name.is_empty() && piece.name != self.name;
        let is_more = self.scan.is_complete && !piece.arguments.trim().is_empty();
        !(is_other_id || is_other_name || is_more)
    }

    fn take(&mut self, piece: &Piece<'_>) {
        if self.id.is_empty() {
            piece.id.clone_into(&mut self.id);
        }
        if self.name.is_empty() {
            piece.name.clone_into(&mut self.name);
        }
        self.arguments.push_str(piece.arguments);
        self.scan.read(piece.arguments);
    }
}

/// Whether arguments are a whole object, found out piece by piece.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    is_text: bool,
    is_escaped: bool,
    is_complete: bool,
}

impl Scan {
    fn read(&mut self, piece: &str) {
        for byte in piece.bytes() {
            if self.is_text {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.is_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.is_complete |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frame(pieces: &Value) -> Value {
        json!({"choices": [{"delta": {"tool_calls": pieces}}]})
    }

    fn collected(frames: &[Value]) -> Vec<(String, String, Value)> {
        let mut calls = Calls::default();
        for pieces in frames {
            calls.take(&frame(pieces));
        }
        assert_eq!(calls.fault(), None);
        let calls = calls.finish().into_iter();
        calls
            .map(|call| (call.call_id, call.fn_name, call.fn_arguments))
            .collect()
    }

    fn begins(index: Value, id: Value, name: &str, arguments: &str) -> Value {
        let mut piece = json!({"function": {"name": name, "arguments": arguments}});
        for (key, value) in [("index", index), ("id", id)] {
            if !value.is_null() {
                piece[key] = value;
            }
        }
        piece
    }

    fn goes_on(index: Value, arguments: &str) -> Value {
        begins(index, Value::Null, "", arguments)
    }

    #[test]
    fn two_calls_are_two_however_they_are_numbered_and_named() {
        let null = Value::Null;
        let cases = [
            // As it should be, and in turns.
            vec![
                json!([begins(json!(0), json!("a"), "look", "")]),
                json!([begins(json!(1), json!("b"), "list", "")]),
                json!([goes_on(json!(0), "{\"x\":")]),
                json!([goes_on(json!(1), "{\"y\":2}")]),
                json!([goes_on(json!(0), "1}")]),
            ],
            // The same id, and none.
            vec![
                json!([begins(json!(0), json!("a"), "look", "{\"x\":1}")]),
                json!([begins(json!(1), json!("a"), "list", "{\"y\":2}")]),
            ],
            vec![json!([
                begins(json!(0), json!(""), "look", "{\"x\":1}"),
                begins(json!(1), json!(""), "list", "{\"y\":2}"),
            ])],
            // No index: by name, by id, by place.
            vec![
                json!([begins(null.clone(), null.clone(), "look", "{\"x\":1}")]),
                json!([begins(null.clone(), null.clone(), "list", "{\"y\"")]),
                json!([goes_on(null.clone(), ":2}")]),
            ],
            vec![
                json!([
                    begins(null.clone(), json!("a"), "look", ""),
                    begins(null.clone(), json!("b"), "list", "")
                ]),
                json!([goes_on(null.clone(), "{\"x\":1}"), goes_on(null.clone(), "{\"y\":2}")]),
            ],
            vec![
                json!([begins(null.clone(), json!("a"), "look", "")]),
                json!([begins(null.clone(), json!("b"), "list", "")]),
                json!([begins(null.clone(), json!("a"), "", "{\"x\":1}")]),
                json!([begins(null.clone(), json!("b"), "", "{\"y\":2}")]),
            ],
            // Always index 0.
            vec![
                json!([begins(json!(0), json!("a"), "look", "{\"x\":1}")]),
                json!([begins(json!(0), json!("b"), "list", "{\"y\":"), goes_on(json!(0), "2}")]),
            ],
            // From one, far apart, the name in every piece, an id of its own for each.
            vec![
                json!([begins(json!(1), json!("a"), "look", "{\"x\":")]),
                json!([begins(json!(1), json!("a"), "look", "1}")]),
                json!([begins(json!(4_000_000_000_u64), json!("b"), "list", "{\"y\":")]),
                json!([begins(json!(4_000_000_000_u64), json!("c"), "", "2}")]),
            ],
            // An object instead of its text.
            vec![json!([
                begins(json!(0), json!("a"), "look", "{\"x\":1}"),
                {"index": 1, "id": "b", "function": {"name": "list", "arguments": {"y": 2}}},
            ])],
        ];
        for frames in cases {
            let calls = collected(&frames);
            let calls: Vec<(&str, &Value)> = calls.iter().map(|(_, name, value)| (name.as_str(), value)).collect();
            assert_eq!(
                calls,
                [("look", &json!({"x": 1})), ("list", &json!({"y": 2}))],
                "{frames:?}"
            );
        }
    }

    #[test]
    fn the_same_tool_twice_in_one_place_is_two_calls() {
        let piece = |x: u32| json!([begins(json!(0), json!(""), "look", &format!("{{\"x\":\"}}{x}\"}}"))]);
        let calls = collected(&[piece(1), piece(2)]);
        let arguments: Vec<&str> = calls.iter().filter_map(|(_, _, value)| value["x"].as_str()).collect();
        assert_eq!(arguments, ["}1", "}2"]);
    }

    #[test]
    fn calls_without_end_are_refused_and_forgotten() {
        let mut calls = Calls::default();
        for index in 0..=MAX_CALLS {
            calls.take(&frame(&json!([begins(json!(index), json!("a"), "look", "{}")])));
        }
        assert!(
            calls
                .fault()
                .is_some_and(|fault| fault.contains("more than 64 tool calls"))
        );
        assert!(calls.finish().is_empty());
        let mut calls = Calls::default();
        let piece = frame(&json!([begins(json!(0), json!("a"), "look", &"x".repeat(300_000))]));
        (0..4).for_each(|_| calls.take(&piece));
        assert!(calls.fault().is_some_and(|fault| fault.contains("bytes")));
    }
}

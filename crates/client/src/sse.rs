//! Reader of server-sent events, fed with bytes as they come from the network.
//!
//! Ours and not a library's, because the rules that matter here (`sse.md` 2) are exactly those where readers differ:
//! a character split over two chunks, CR LF split over two chunks, comments between the lines of a frame, and a last
//! frame without its empty line, which is still delivered. Input is cut at line ends first and decoded afterwards, so
//! a split can never fall into a character. A line longer than the limit is an error and not a growing buffer.

/// Longest line accepted, in bytes; larger than any frame the contract allows.
pub const LINE_MAX_BYTES: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The `event:` line, `message` when there is none.
    pub event: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
    /// The `id:` line of this frame.
    pub id: Option<String>,
}

/// A line or a frame grew past [`LINE_MAX_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frame is larger than {LINE_MAX_BYTES} bytes")]
pub struct TooLong;

/// The incremental parser.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    started: bool,
    event: String,
    data: Option<String>,
    id: Option<String>,
}

impl Parser {
    /// A parser at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends the frames they complete.
    ///
    /// # Errors
    /// A line or a frame is too long.
    pub fn push(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (head, tail) = rest.split_at(end);
            self.line.extend_from_slice(head);
            self.end_line(frames)?;
            rest = match tail {
                [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > LINE_MAX_BYTES {
            Err(TooLong)
        } else {
            Ok(())
        }
    }

    /// The stream ended: an unterminated last frame is delivered too.
    ///
    /// # Errors
    /// The last line is too long.
    pub fn finish(mut self) -> Result<Option<Frame>, TooLong> {
        let mut frames = Vec::new();
        if !self.line.is_empty() {
            self.end_line(&mut frames)?;
        }
        self.end_frame(&mut frames);
        Ok(frames.pop())
    }

    fn end_line(&mut self, frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let line = if self.started {
            &*text
        } else {
            text.strip_prefix('\u{feff}').unwrap_or(&text)
        };
        self.started = true;
        if line.is_empty() {
            self.end_frame(frames);
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                let data = match &mut self.data {
                    Some(data) => {
                        data.push('\n');
                        data
                    }
                    none => none.insert(String::new()),
                };
                if data.len() + value.len() > LINE_MAX_BYTES {
                    return Err(TooLong);
                }
                data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // Comments have an empty field name; `retry` and unknown fields are ignored.
            _ => {}
        }
        Ok(())
    }

    fn end_frame(&mut self, frames: &mut Vec<Frame>) {
        let event = std::mem::take(&mut self.event);
        let id = self.id.take();
        if let Some(data) = self.data.take() {
            frames.push(Frame {
                event: if event.is_empty() { "message".to_owned() } else { event },
                data,
                id,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Frame, LINE_MAX_BYTES, Parser, TooLong};

    fn parse_chunks<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
        let mut parser = Parser::new();
        let mut frames = Vec::new();
        for chunk in chunks {
            parser.push(chunk, &mut frames).unwrap();
        }
        frames.extend(parser.finish().unwrap());
        frames
    }

    fn parse(text: &str) -> Vec<(String, String)> {
        parse_chunks([text.as_bytes()])
            .into_iter()
            .map(|frame| (frame.event, frame.data))
            .collect()
    }

    fn pair(event: &str, data: &str) -> (String, String) {
        (event.to_owned(), data.to_owned())
    }

    #[test]
    fn the_contracts_frame() {
        assert_eq!(
            parse("event: agent_text_delta\ndata: {\"text\":\"Hello\"}\n\n"),
            [pair("agent_text_delta", "{\"text\":\"Hello\"}")]
        );
    }

    #[test]
    fn line_ends_may_be_lf_crlf_or_cr() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "event: a|data: 1||event: b|data: 2||".replace('|', end);
            assert_eq!(parse(&text), [pair("a", "1"), pair("b", "2")], "{end:?}");
        }
    }

    #[test]
    fn comments_unknown_fields_and_frames_without_data_are_dropped() {
        assert_eq!(
            parse(": ping\n\nevent: a\n: in between\nretry: 5\nfoo\ndata: 1\n\nevent: empty\n\ndata: 2\n\n"),
            [pair("a", "1"), pair("message", "2")]
        );
    }

    #[test]
    fn data_lines_are_joined_and_one_leading_space_is_cut() {
        assert_eq!(
            parse("data: a\ndata:  b\ndata:c\ndata\n\n"),
            [pair("message", "a\n b\nc\n")]
        );
        assert_eq!(parse("data:\n\n"), [pair("message", "")]);
    }

    #[test]
    fn an_unterminated_tail_is_delivered() {
        assert_eq!(parse("event: a\ndata: 1"), [pair("a", "1")]);
        assert_eq!(parse("event: a\ndata: 1\r"), [pair("a", "1")]);
        assert_eq!(parse("event: a"), []);
    }

    #[test]
    fn a_byte_order_mark_is_cut_once() {
        assert_eq!(parse("\u{feff}data: \u{feff}1\n\n"), [pair("message", "\u{feff}1")]);
    }

    #[test]
    fn ids_belong_to_their_frame() {
        let frames = parse_chunks([&b"id: 7\ndata: a\n\ndata: b\n\nid: x\0y\ndata: c\n\n"[..]]);
        assert_eq!(
            frames.iter().map(|frame| frame.id.as_deref()).collect::<Vec<_>>(),
            [Some("7"), None, None]
        );
    }

    #[test]
    fn invalid_utf8_does_not_end_the_stream() {
        assert_eq!(parse_chunks([&b"data: a\xffb\n\ndata: 2\n\n"[..]]).len(), 2);
    }

    #[test]
    fn endless_lines_and_frames_are_refused() {
        let mut parser = Parser::new();
        let mut frames = Vec::new();
        assert_eq!(parser.push(&vec![b'a'; LINE_MAX_BYTES + 1], &mut frames), Err(TooLong));
        let mut parser = Parser::new();
        let line = [b"data: ".as_slice(), &vec![b'a'; LINE_MAX_BYTES / 2], b"\n"].concat();
        parser.push(&line, &mut frames).unwrap();
        parser.push(&line, &mut frames).unwrap_err();
    }

    #[test]
    fn every_single_split_of_the_sample_gives_the_same_frames() {
        let sample = "\u{feff}event: run_started\r\ndata: {\"run_id\":\"rn_1\"}\r\n\r\n: ping\r\n\r\nevent: agent_text_delta\n\
                      data: {\"text\":\"Grüße 🦀 \"}\n\nevent: agent_finish\rdata: {}\r\rdata: täil";
        let whole = parse_chunks([sample.as_bytes()]);
        assert_eq!(whole.len(), 4);
        for at in 0..=sample.len() {
            let (head, tail) = sample.as_bytes().split_at(at);
            assert_eq!(parse_chunks([head, tail]), whole, "split at {at}");
        }
        assert_eq!(parse_chunks(sample.as_bytes().chunks(1)), whole);
    }

    proptest! {
        #[test]
        fn chunking_never_matters(
            lines in proptest::collection::vec("(event: |data: |data:|: |id: )?[a-zä🦀:\u{0} ]{0,6}(\n|\r\n|\r|\n\n|\r\n\r\n)", 0..20),
            sizes in proptest::collection::vec(1usize..9, 1..40),
        ) {
            let text = lines.concat();
            let whole = parse_chunks([text.as_bytes()]);
            let mut chunks = Vec::new();
            let mut rest = text.as_bytes();
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (head, tail) = rest.split_at((*size).min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            prop_assert_eq!(parse_chunks(chunks), whole);
        }

        #[test]
        fn what_is_written_is_read(frames in proptest::collection::vec(("[a-z_]{1,12}", "[^\r\n]{0,40}"), 0..10)) {
            let text: String = frames.iter().map(|(event, data)| format!("event: {event}\ndata: {data}\n\n")).collect();
            prop_assert_eq!(parse(&text), frames);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let whole = parse_chunks([bytes.as_slice()]);
            prop_assert_eq!(parse_chunks(bytes.chunks(3)), whole);
        }
    }
}

//! Text that comes faster than anybody reads, in fewer pieces.
//!
//! Each piece of an answer makes its own way through the turn, between the services and to the reader's socket; joined
//! they cost little more than one. So the first piece goes at once, and one that comes soon after another waits for its
//! fellows, but no longer than people see, and not for anything behind it: the end of an answer, and whatever else is no
//! text, lets it go.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, Stream, StreamExt as _, stream::Fuse};
use tokio::time::{Instant, Sleep};

use crate::port::{Error, EventStream, StreamEvent};

/// Pieces are so far apart. A display shows sixty pictures in a second.
const APART: Duration = Duration::from_millis(10);
/// A piece of this size goes before its time.
const MAX_JOINED_BYTES: usize = 4 * 1024;

type Item = Result<StreamEvent, Error>;

/// The events of an answer, with text joined that comes fast.
pub(super) struct Joined {
    /// It may have ended behind text that had to go first.
    events: Fuse<EventStream>,
    /// Waits for more, or for its time.
    text: String,
    /// Came behind text that had to go first.
    next: Option<Item>,
    /// When the last piece went.
    last: Option<Instant>,
    /// Runs while text waits.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Joined {
    pub(super) fn new(events: EventStream) -> Self {
        Self {
            events: events.fuse(),
            text: String::new(),
            next: None,
            last: None,
            pause: None,
        }
    }

    /// Whether the text that waits has to go; otherwise its task is woken when it has.
    fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause {
            return pause.poll_unpin(context).is_ready();
        }
        let Some(last) = self.last else { return true };
        let due = last + APART;
        if due <= Instant::now() {
            return true;
        }
        let pause = self.pause.insert(Box::pin(tokio::time::sleep_until(due)));
        pause.poll_unpin(context).is_ready()
    }
}

impl Stream for Joined {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let this = &mut *self;
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(next));
        }
        while this.text.len() < MAX_JOINED_BYTES {
            match this.events.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(StreamEvent::TextDelta(more)))) if !more.is_empty() => {
                    this.text.push_str(&more);
                    if this.last.is_none() {
                        break;
                    }
                }
                // Counts are no part of the text: it goes on waiting behind them.
                usage @ Poll::Ready(Some(Ok(StreamEvent::Usage(_)))) => return usage,
                other if this.text.is_empty() => return other,
                Poll::Ready(next) => {
                    this.next = next;
                    break;
                }
                Poll::Pending if this.is_due(context) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        (this.last, this.pause) = (Some(Instant::now()), None);
        Poll::Ready(Some(Ok(StreamEvent::TextDelta(std::mem::take(&mut this.text)))))
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::port::{ErrorKind, StopReason, Usage};

    fn text(text: &str) -> Item {
        Ok(StreamEvent::TextDelta(text.to_owned()))
    }

    fn finish() -> Item {
        Ok(StreamEvent::Finish {
            stop_reason: StopReason::EndTurn,
            usage: Usage::default(),
        })
    }

    async fn joined(events: Vec<Item>) -> Vec<Item> {
        Joined::new(stream::iter(events).boxed()).collect().await
    }

    #[tokio::test]
    async fn the_first_piece_goes_at_once_and_what_waits_behind_it_together() {
        let events = joined(vec![text("a"), text("b"), text("c"), finish()]).await;
        assert_eq!(events, [text("a"), text("bc"), finish()]);
    }

    #[tokio::test]
    async fn text_goes_before_the_error_behind_it() {
        let error = Error::new(ErrorKind::Protocol, "broken");
        let events = joined(vec![text("a"), text("b"), Err(error.clone())]).await;
        assert_eq!(events, [text("a"), text("b"), Err(error)]);
    }

    #[tokio::test]
    async fn signs_of_life_are_not_held_back() {
        let events = joined(vec![text(""), text("a"), text("b"), text(""), text("c"), finish()]).await;
        assert_eq!(events, [text(""), text("a"), text("b"), text(""), text("c"), finish()]);
    }

    #[tokio::test]
    async fn counts_among_the_text_let_nothing_go() {
        let usage = || Ok(StreamEvent::Usage(Usage::default()));
        let events = joined(vec![
            usage(),
            text("a"),
            usage(),
            text("b"),
            usage(),
            text("c"),
            finish(),
        ])
        .await;
        assert_eq!(events, [usage(), text("a"), usage(), usage(), text("bc"), finish()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_waits_for_its_time_and_no_longer() {
        let (sender, receiver) = mpsc::channel(8);
        let events = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let (mut events, began) = (Joined::new(events.boxed()), Instant::now());
        let say = async |piece| sender.send(text(piece)).await.unwrap();
        say("a").await;
        assert_eq!(events.next().await, Some(text("a")));
        assert_eq!(began.elapsed(), Duration::ZERO, "the first at once");
        say("b").await;
        tokio::time::advance(Duration::from_millis(4)).await;
        assert!(events.next().now_or_never().is_none());
        say("c").await;
        assert_eq!(events.next().await, Some(text("bc")));
        assert_eq!(began.elapsed(), APART);
        tokio::time::advance(APART).await;
        say("d").await;
        assert_eq!(events.next().await, Some(text("d")));
        assert_eq!(began.elapsed(), APART * 2, "a slow one is not held back");
        say("e").await;
        drop(sender);
        assert_eq!(events.next().await, Some(text("e")));
        assert_eq!(events.next().await, None);
        assert_eq!(began.elapsed(), APART * 2, "nothing more can come");
    }

    #[tokio::test]
    async fn a_piece_is_bounded() {
        let piece = "x".repeat(1000);
        let mut events = Joined::new(stream::repeat(text(&piece)).boxed());
        for _ in 0..3 {
            let Some(Ok(StreamEvent::TextDelta(text))) = events.next().await else {
                panic!("no text");
            };
            assert!(text.len() < MAX_JOINED_BYTES + piece.len());
        }
    }
}

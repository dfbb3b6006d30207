//! The contract of the queue port, run over every implementation, and what only a broker can show.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed unwrap is a failed test"
)]

mod amqp;
mod broker;
mod memory;
mod process;
mod reconnect;
mod suite;
mod support;

/// The cases of the contract, once; each becomes a test per implementation.
macro_rules! contract {
    ($($case:ident)*) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $case() {
                let fixture = crate::memory::fixture();
                crate::suite::$case(&fixture).await;
            })*
        }
        mod on_amqp {
            $(#[tokio::test]
            async fn $case() {
                let Some(fixture) = crate::amqp::fixture() else { return };
                crate::suite::$case(&fixture).await;
                crate::amqp::clean_up(&fixture).await;
            })*
        }
    };
}

contract! {
    what_is_published_is_received_as_it_was
    an_acknowledged_message_does_not_come_again
    a_consumer_that_nobody_waits_for_keeps_no_message
    a_dropped_delivery_comes_again_with_the_next_attempt
    a_message_handed_back_comes_again_after_the_delay
    a_message_handed_back_at_once_comes_again
    a_delayed_message_comes_after_its_delay
    a_long_delay_does_not_hold_up_a_short_one
    a_dead_letter_keeps_its_message_and_its_reason
    a_message_that_is_handed_back_too_often_is_a_dead_letter
    a_message_that_is_dropped_too_often_is_a_dead_letter
    poison_harms_nobody
    messages_keep_their_order
    prefetch_bounds_what_is_undecided
    a_cancelled_receive_loses_and_counts_nothing
    two_consumers_share_the_work
    a_worker_that_stops_finishes_what_it_has
    a_broadcast_reaches_every_subscriber
    a_broadcast_without_subscribers_is_no_error
    a_slow_subscriber_is_told_that_it_missed_something
    a_message_that_cannot_be_carried_is_refused
    a_closed_queue_says_so
}

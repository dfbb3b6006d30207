//! The queue port, its memory twin and its AMQP implementation.
//!
//! Services exchange work through [`Queue`] and never learn what is behind it: [`MemoryQueue`] in `copass dev`,
//! [`AmqpQueue`] on a broker. One contract suite (`tests/it/suite`) runs over both, so that what holds on a laptop holds
//! in a cluster.
//!
//! What every implementation promises:
//!
//! - **At least once.** A message is gone only after [`Delivery::ack`], or after it was moved to the dead letters. A
//!   consumer therefore records the message id together with its effect (the inbox) and treats a repeat as done.
//! - **Durable when `publish` returns.** On a broker that means confirmed; in memory it means as durable as the process,
//!   which is why `dev` keeps the outbox in front of it.
//! - **Order.** Messages of one queue arrive in the order they were published, as long as there is one consumer and no
//!   message is handed back. A delayed message takes its place when its delay ends.
//! - **Attempts are counted and bounded.** Handing back, dropping and crashing all count. After
//!   [`Policy::max_attempts`] the message is a dead letter with a reason, never an endless loop.
//! - **One bad message harms nobody.** Bytes that are not a message are dead-lettered alone.
//! - **Topics are news, not work.** [`Queue::broadcast`] reaches the subscribers that are connected now, at most once,
//!   and a subscriber is told when it may have missed something ([`Event`]).

mod amqp;
mod error;
mod memory;
mod message;
mod name;
mod policy;
mod port;
pub mod worker;

pub use amqp::{AmqpOptions, AmqpQueue};
pub use error::Error;
pub use memory::MemoryQueue;
pub use message::{DeadLetter, Message};
pub use name::{QueueName, TopicName};
pub use policy::{Policies, Policy};
pub use port::{Consumer, Delivery, Event, Queue, QueueDepth, Subscription};

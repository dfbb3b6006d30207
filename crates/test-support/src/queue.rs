//! Queues for tests: the memory twin, and a part of the broker that nobody else uses.

use std::sync::Arc;

use copass_queue::{AmqpOptions, AmqpQueue, MemoryQueue, Queue, QueueName, TopicName};

use crate::{background::run_to_end, environment};

/// A queue in this process.
#[must_use]
pub fn memory_queue() -> Arc<dyn Queue> {
    Arc::new(MemoryQueue::default())
}

/// A queue on the broker under a prefix of its own; the named queues and topics are removed when it is dropped.
#[derive(Debug)]
pub struct TestAmqp {
    queue: AmqpQueue,
    options: AmqpOptions,
    queues: Vec<QueueName>,
    topics: Vec<TopicName>,
}

/// A queue on the broker of `COPASS_TEST_AMQP_URL`; `None` when the tests that need one are left out.
///
/// # Panics
/// The variable is missing or no broker address.
#[must_use]
pub fn amqp_queue(queues: &[QueueName], topics: &[TopicName]) -> Option<TestAmqp> {
    let mut options = AmqpOptions::new(environment::service("COPASS_TEST_AMQP_URL")?);
    options.prefix = format!("t{}.", uuid::Uuid::now_v7().simple());
    let queue = AmqpQueue::new(options.clone()).expect("COPASS_TEST_AMQP_URL is a broker address");
    Some(TestAmqp {
        queue,
        options,
        queues: queues.to_vec(),
        topics: topics.to_vec(),
    })
}

impl TestAmqp {
    /// The queue, as services take it.
    #[must_use]
    pub fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(self.queue.clone())
    }

    /// How to reach the same part of the broker from another process.
    #[must_use]
    pub fn options(&self) -> &AmqpOptions {
        &self.options
    }
}

impl Drop for TestAmqp {
    fn drop(&mut self) {
        let options = self.options.clone();
        let (queues, topics) = (std::mem::take(&mut self.queues), std::mem::take(&mut self.topics));
        run_to_end(async move {
            // Its own connections: those of the test belong to a runtime that may be ending.
            let Ok(queue) = AmqpQueue::new(options) else { return };
            for name in &queues {
                let _ = queue.delete(name).await;
            }
            for name in &topics {
                let _ = queue.delete_topic(name).await;
            }
            queue.close().await;
        });
    }
}

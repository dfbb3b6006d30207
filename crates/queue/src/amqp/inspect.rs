//! Looking at the broker, and tidying up. Each look uses a channel of its own, because a refused question closes the
//! channel it was asked on.

use lapin::options::{BasicGetOptions, BasicNackOptions, ExchangeDeleteOptions, QueueDeleteOptions};

use super::Shared;
use super::link::Failure;
use super::topology::{self, Part, Step};
use super::wire;
use crate::{DeadLetter, QueueDepth, QueueName, TopicName};

impl Shared {
    /// Asks both connections for a sign of life.
    pub(super) async fn health(&self) -> Result<(), Failure> {
        for link in [&self.publishing, &self.consuming] {
            let connection = link.connection().await?;
            let channel = connection.create_channel().await?;
            channel.close(200, "healthy".into()).await?;
            if connection.status().blocked() {
                let error = std::io::Error::other("the broker is short of memory or disk and blocks publishers");
                return Err(Failure::Passing(error.into()));
            }
        }
        Ok(())
    }

    /// Counts by declaring, which answers with the number and is harmless for what exists. Asking passively would be
    /// an error on the broker for each retry step that nobody used yet.
    pub(super) async fn depth(&self, queue: &QueueName) -> Result<QueueDepth, Failure> {
        let channel = self.consuming.connection().await?.create_channel().await?;
        let dead = topology::declare(&channel, &self.names, queue, Part::Dead).await?;
        let ready = topology::declare(&channel, &self.names, queue, Part::Main).await?;
        let mut delayed = 0;
        for step in Step::all() {
            delayed += topology::declare(&channel, &self.names, queue, Part::Retry(step)).await?;
        }
        channel.close(200, "counted".into()).await?;
        Ok(QueueDepth {
            ready,
            delayed,
            dead,
            unacked: None,
        })
    }

    /// Takes the oldest dead letters, reads them and puts them back where they were.
    pub(super) async fn dead_letters(&self, queue: &QueueName, limit: usize) -> Result<Vec<DeadLetter>, Failure> {
        let channel = self.consuming.connection().await?.create_channel().await?;
        topology::declare(&channel, &self.names, queue, Part::Dead).await?;
        let name = self.names.queue(queue, Part::Dead);
        let mut letters = Vec::new();
        let mut last_tag = None;
        while letters.len() < limit {
            let Some(got) = channel
                .basic_get(name.as_str().into(), BasicGetOptions::default())
                .await?
            else {
                break;
            };
            last_tag = Some(got.delivery.delivery_tag);
            letters.push(wire::dead_letter(got.delivery));
        }
        if let Some(tag) = last_tag {
            channel
                .basic_nack(
                    tag,
                    BasicNackOptions {
                        multiple: true,
                        requeue: true,
                    },
                )
                .await?;
        }
        // Answered only after the broker has put everything back.
        channel.close(200, "looked".into()).await?;
        Ok(letters)
    }

    pub(super) async fn delete(&self, queue: &QueueName) -> Result<(), Failure> {
        let channel = self.consuming.connection().await?.create_channel().await?;
        // From where messages come to where they go. Deleting what does not exist is no error.
        let parts = Step::all().map(Part::Retry).chain([Part::Main, Part::Dead]);
        for part in parts {
            let name = self.names.queue(queue, part);
            channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
        }
        channel.close(200, "deleted".into()).await?;
        Ok(())
    }

    pub(super) async fn delete_topic(&self, topic: &TopicName) -> Result<(), Failure> {
        let channel = self.consuming.connection().await?.create_channel().await?;
        let exchange = self.names.exchange(topic);
        channel
            .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
            .await?;
        channel.close(200, "deleted".into()).await?;
        Ok(())
    }
}

//! What the servers underneath can do at best, measured in the same run on the same machine.

use super::stage::Stage;
use anyhow::Context as _;
use async_nats::jetstream::stream::{Config, StorageType};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// How long each limit is measured.
const MEASURE: Duration = Duration::from_secs(3);
/// A message about as long as a job's events.
const BODY_BYTES: usize = 250;

/// Requests to a responder of our own and back, a second, with so many in flight.
pub async fn request_reply(stage: &Stage, in_flight: usize) -> anyhow::Result<f64> {
    let client = &stage.client;
    let subject = format!("bench.echo.{}", stage.namespace);
    let mut asked = client.subscribe(subject.clone()).await?;
    let responder = client.clone();
    let echo = tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            if let Some(reply) = message.reply {
                responder.publish(reply, message.payload).await.ok();
            }
        }
    });
    let body = bytes::Bytes::from(vec![7; BODY_BYTES]);
    let begun = Instant::now();
    let workers = (0..in_flight).map(|_| {
        let (client, subject, body) = (client.clone(), subject.clone(), body.clone());
        tokio::spawn(async move {
            let mut done = 0_u64;
            while begun.elapsed() < MEASURE {
                done += u64::from(client.request(subject.clone(), body.clone()).await.is_ok());
            }
            done
        })
    });
    let done = futures::future::join_all(workers).await.into_iter().filter_map(Result::ok).sum::<u64>();
    echo.abort();
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

/// One request after another: how long each takes.
pub async fn publish_latency(stage: &Stage) -> anyhow::Result<Histogram<u64>> {
    let stream = Scratch::create(stage).await?;
    let mut times = Histogram::new(3)?;
    let begun = Instant::now();
    while begun.elapsed() < MEASURE {
        let sent = Instant::now();
        stream.context.publish(stream.subject.clone(), vec![7; BODY_BYTES].into()).await?.await?;
        times.record(sent.elapsed().as_micros() as u64)?;
    }
    stream.remove().await?;
    Ok(times)
}

/// Messages a second that JetStream takes, each acknowledged, with so many in flight.
pub async fn publish(stage: &Stage, in_flight: usize) -> anyhow::Result<f64> {
    let stream = Scratch::create(stage).await?;
    let body = bytes::Bytes::from(vec![7; BODY_BYTES]);
    let begun = Instant::now();
    let mut acks = FuturesUnordered::new();
    let mut done = 0_u64;
    while begun.elapsed() < MEASURE {
        while acks.len() < in_flight {
            let ack = stream.context.publish(stream.subject.clone(), body.clone()).await?;
            acks.push(ack.into_future());
        }
        if let Some(ack) = acks.next().await {
            ack?;
            done += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    while acks.next().await.is_some() {}
    stream.remove().await?;
    Ok(done as f64 / seconds)
}

/// A stream as durable as Outlive's own, for a moment.
struct Scratch {
    context: async_nats::jetstream::Context,
    name: String,
    subject: String,
}

impl Scratch {
    async fn create(stage: &Stage) -> anyhow::Result<Scratch> {
        let context = async_nats::jetstream::new(stage.client.clone());
        let name = format!("BENCH_{}", std::process::id());
        let subject = format!("bench.raw.{}", std::process::id());
        let config = Config {
            name: name.clone(),
            subjects: vec![subject.clone()],
            storage: StorageType::File,
            num_replicas: stage.replicas,
            allow_direct: true,
            ..Config::default()
        };
        context.create_stream(config).await.context("a stream to measure with")?;
        Ok(Scratch { context, name, subject })
    }

    async fn remove(self) -> anyhow::Result<()> {
        self.context.delete_stream(&self.name).await?;
        Ok(())
    }
}

//! One measurement: publish a plan to the sessions of a fleet, wait for the last message, read the costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::client::count::Schedule;
use crate::client::session::Expectation;
use crate::client::tally::{Accounting, Tally};
use crate::client::{Counters, Fleet, TICK};
use crate::clock;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::probe::{Probe, Usage};
use crate::publisher::{Dialect, Draw, Plan, Published, publish};
use crate::report::figures::{self, Figures};
use crate::stamp::Format;
use crate::stats::Latency;

/// What to publish to whom.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// Shown to a person.
    pub(super) label: &'static str,
    /// Names of the channels.
    pub(super) channels: Arc<[String]>,
    /// Sessions that read each of them.
    pub(super) subscribers: Arc<[u32]>,
    /// Which channel is next.
    pub(super) draw: Draw,
    /// Bytes of a payload.
    pub(super) payload: usize,
    /// What a payload is.
    pub(super) format: Format,
    /// Messages in all.
    pub(super) messages: u64,
    /// Messages per second; `None` for a burst.
    pub(super) rate: Option<f64>,
    /// Sessions that are closed and reopened per second, while it is published.
    pub(super) churn: f64,
    /// What has not arrived when nothing has for so long is lost.
    pub(super) grace: Duration,
}

/// What a measurement found.
#[derive(Debug)]
pub(super) struct Measured {
    /// Messages published.
    pub(super) published: u64,
    /// From the first message's due time to the last delivery, in s.
    pub(super) seconds: f64,
    /// Deliveries per second over that time.
    pub(super) deliveries_per_second: f64,
    /// Where the messages went.
    pub(super) accounting: Accounting,
    /// From a message's due time to its reading.
    pub(super) latency: Latency,
    /// The most that the publisher itself was late, in us; part of the latency.
    pub(super) publisher_late_us: f64,
    /// Messages that nobody had subscribed to, where the backend tells.
    pub(super) unheard: u64,
    /// What the server used.
    pub(super) server: Option<Usage>,
    /// Its CPU time per delivery, in us.
    pub(super) cpu_us_per_delivery: Option<f64>,
    /// All counts.
    pub(super) tally: Tally,
}

/// Measures. `watch` is called about every 20 ms with the running counts.
///
/// # Errors
/// A backend or a client thread that fails, or messages that nobody listened to.
pub(super) fn measure(
    fleet: &Fleet,
    dialect: &dyn Dialect,
    load: &Load,
    probe: Option<&Probe>,
    monitor: &Monitor,
    watch: &mut dyn FnMut(&Counters) -> Result<()>,
) -> Result<Measured> {
    let plan = Plan {
        channels: Arc::clone(&load.channels),
        draw: load.draw.clone(),
        payload: load.payload,
        format: load.format,
        messages: load.messages,
        rate: load.rate,
        round: next_round(),
    };
    fleet.start_round(expectation(&plan))?;
    let base = delivered(fleet);
    let before = probe.map(Probe::sample).transpose()?;
    if load.churn > 0.0 {
        fleet.churn(load.churn)?;
    }
    let published = publish_watched(fleet, dialect, &plan, load.label, monitor, watch)?;
    if load.churn > 0.0 {
        fleet.churn(0.0)?;
    }

    // Nobody can say beforehand what those get who come and go.
    let all = expected(&published, &load.subscribers);
    let expected = if load.churn > 0.0 { u64::MAX } else { base + all };
    let mut last = (delivered(fleet), Instant::now());
    monitor.begin("the last deliveries", all);
    while last.0 < expected && last.1.elapsed() < load.grace {
        clock::pause(TICK);
        monitor.at(last.0 - base);
        watch(fleet.counters()).inspect_err(|_| monitor.end())?;
        let now = delivered(fleet);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    monitor.at(last.0 - base);
    monitor.end();
    let after = probe.map(Probe::sample).transpose()?;
    let schedule = Schedule { first: published.first, interval: plan.channel_interval() };
    let tally = fleet.collect(&published.per_channel, schedule)?;
    if tally.delivered == 0 && published.unheard == load.messages && expected > base {
        return Err(Error::Run(format!(
            "{} has no subscriber for these messages: {}",
            dialect.name(),
            dialect.unheard()
        )));
    }
    let server = after.zip(before).map(|(after, before)| after.since(&before));
    let seconds = tally.last_delivery.saturating_sub(published.first) as f64 / 1e9;
    let per = |total: f64, count: f64| if count > 0.0 { Some(total / count) } else { None };
    Ok(Measured {
        published: load.messages,
        seconds,
        deliveries_per_second: per(tally.delivered as f64, seconds).unwrap_or(0.0),
        accounting: tally.accounting(),
        latency: tally.latency(),
        publisher_late_us: published.late as f64 / 1e3,
        unheard: published.unheard,
        server,
        cpu_us_per_delivery: server.and_then(|usage| usage.cpu_us_per(tally.delivered as f64)),
        tally,
    })
}

impl Measured {
    /// Its figures.
    pub(super) fn figures(&self, readers: u32) -> Figures {
        let mut out = Figures::default();
        out.set(&figures::SESSIONS, f64::from(readers));
        out.set(&figures::PUBLISHED, self.published as f64);
        out.set(&figures::PUBLISHED_PER_SECOND, self.published as f64 / self.seconds);
        out.set(&figures::SECONDS, self.seconds);
        out.set(&figures::DELIVERIES_PER_SECOND, self.deliveries_per_second);
        let counts = [
            (&figures::DELIVERED, self.accounting.delivered),
            (&figures::LOST, self.accounting.lost),
            (&figures::DOUBLED, self.accounting.duplicates),
            (&figures::OUT_OF_ORDER, self.accounting.out_of_order),
            (&figures::MISROUTED, self.accounting.misrouted),
            (&figures::STRAYS, self.accounting.strays),
            (&figures::UNHEARD, self.unheard),
        ];
        counts.into_iter().for_each(|(figure, count)| out.set(figure, count as f64));
        if self.latency.count > 0 {
            out.set(&figures::P50_US, self.latency.p50_us);
            out.set(&figures::P90_US, self.latency.p90_us);
            out.set(&figures::P99_US, self.latency.p99_us);
            out.set(&figures::P999_US, self.latency.p999_us);
            out.set(&figures::MAX_US, self.latency.max_us);
        }
        out.set(&figures::PUBLISHER_LATE_US, self.publisher_late_us);
        if let Some(usage) = self.server {
            let user = self.cpu_us_per_delivery.zip(usage.user_share).map(|(cpu, share)| cpu * share);
            out.set(&figures::CPU_US_PER_DELIVERY, self.cpu_us_per_delivery);
            out.set(&figures::CPU_USER_US_PER_DELIVERY, user);
            let system = self.cpu_us_per_delivery.zip(user).map(|(cpu, user)| cpu - user);
            out.set(&figures::CPU_SYSTEM_US_PER_DELIVERY, system);
            out.set(&figures::CPU_SECONDS, usage.cpu_ns as f64 / 1e9);
            out.set(&figures::CONTEXT_SWITCHES_PER_SECOND, usage.context_switches_per_second());
            out.set(&figures::SERVER_RSS_BYTES, usage.rss_bytes as f64);
        }
        out
    }
}

/// Publishes on a thread of its own, while this one shows how far it is.
fn publish_watched(
    fleet: &Fleet,
    dialect: &dyn Dialect,
    plan: &Plan,
    label: &str,
    monitor: &Monitor,
    watch: &mut dyn FnMut(&Counters) -> Result<()>,
) -> Result<Published> {
    let (count, stop) = (monitor.watch_publisher(), AtomicBool::new(false));
    monitor.begin(label, plan.messages);
    let published = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(dialect, plan, &count, &stop));
        let mut watched = Ok(());
        while !publisher.is_finished() {
            clock::pause(TICK);
            monitor.at(count.load(Ordering::Relaxed));
            if watched.is_ok() {
                watched = watch(fleet.counters());
            }
        }
        let published = publisher.join().map_err(|_| Error::Run("the publisher's thread has died".to_owned()))?;
        watched.and(published)
    });
    monitor.at(count.load(Ordering::Relaxed));
    monitor.end();
    published
}

fn delivered(fleet: &Fleet) -> u64 {
    fleet.counters().delivered.load(Ordering::Acquire)
}

/// What sessions are to judge a plan's messages by.
pub(super) fn expectation(plan: &Plan) -> Expectation {
    Expectation { round: plan.round, payload: plan.payload, interval: plan.channel_interval() }
}

/// Deliveries that the messages of each channel make among its subscribers.
pub(super) fn expected(published: &Published, subscribers: &[u32]) -> u64 {
    let channels = published.per_channel.iter().zip(subscribers);
    channels.map(|(&messages, &subscribers)| u64::from(messages) * u64::from(subscribers)).sum()
}

/// Publishes for a moment before a measurement at a rate, so that caches and connections are warm; says what came of
/// it, because a loss is a loss.
pub(super) fn warm_up(fleet: &Fleet, dialect: &dyn Dialect, load: &Load, stage: &Stage<'_>) -> Result<Accounting> {
    let seconds = stage.settings.messages.warm_up;
    if seconds == 0.0 {
        return Ok(Accounting::default());
    }
    let messages = (load.rate.unwrap_or(1.0) * seconds).ceil() as u64;
    let load = Load { label: "warming up", messages, ..load.clone() };
    Ok(measure(fleet, dialect, &load, None, stage.monitor, &mut |_| Ok(()))?.accounting)
}

/// A number for the stamps of a measurement; two processes on one Redis hardly begin with the same.
pub(super) fn next_round() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add((std::process::id() << 6) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(per_channel: &[u32]) -> Published {
        Published { messages: 0, per_channel: per_channel.into(), first: 0, late: 0, unheard: 0 }
    }

    #[test]
    fn every_subscriber_of_a_channel_expects_each_of_its_messages() {
        assert_eq!(expected(&published(&[200]), &[10_000]), 2_000_000);
        assert_eq!(expected(&published(&[3, 2, 2]), &[1, 1, 1]), 7);
        assert_eq!(expected(&published(&[3, 2]), &[3, 2]), 3 * 3 + 2 * 2);
    }

    #[test]
    fn rounds_differ() {
        assert_ne!(next_round(), next_round());
    }
}

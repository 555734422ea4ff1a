//! Arguments.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::client::room::Room;
use crate::client::target::{MAX_SERVERS, Target};
use crate::client::{Crew, Opening};
use crate::error::{Error, Result};
use crate::probe::Probe;
use crate::publisher::{Api, Dialect, Mqtt, Nats, Nchan, Redis};
use crate::report::Outputs;
use crate::report::compare::CompareReportsArgs;
use crate::stamp::{MAX_CHANNELS, MIN_PAYLOAD};
use crate::wire::Wire;

/// Load generator for Tidegate and other servers of the Centrifuge client protocol.
///
/// Every message is numbered and time-stamped; a run fails (exit status 1) when a message is lost, comes twice or out
/// of order, when a session ends early, or when a bound given by a --max or --min flag is missed. Exit status 2 means
/// that the run could not be made.
#[derive(Debug, Parser)]
#[command(name = "tidegate-loadtest", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
    /// No progress.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold subscribed sessions and report the server's memory for each.
    Idle(IdleArgs),
    /// Publish to one channel that every session has subscribed to.
    Broadcast(BroadcastArgs),
    /// Publish to a channel per session.
    Unicast(UnicastArgs),
    /// Broadcast while some sessions have stopped reading.
    Stall(StallArgs),
    /// Hold sessions over many servers, broadcast to all of them, and kill a server.
    Hold(HoldArgs),
    /// Broadcast to the server and to a loop that only writes, in turns, and report the ratio of their CPU time.
    CompareFloor(CompareArgs),
    /// Compare reports: medians over repeats, spreads, ratios to a base.
    Compare(CompareReportsArgs),
    /// Be that loop: accept, answer, frame each message of a Redis channel once, write it to every socket.
    Floor(FloorArgs),
    /// Be one of the processes of --processes.
    #[command(hide = true)]
    Worker,
}

/// Which server, and how to hold sessions against it.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ServerArgs {
    /// The server's address; on this machine at the wire's usual port by default. May be given several times: sessions
    /// are spread over the servers.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) server: Vec<SocketAddr>,
    /// Transport and encoding.
    #[arg(long, value_enum, default_value_t = Wire::WsJson)]
    pub(crate) wire: Wire,
    /// The WebSocket endpoint; by default /connection/websocket, /sub for Nchan (the channel's name is appended) and /
    /// for NATS.
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// The channel to subscribe to; with a channel per session, the beginning of their names.
    #[arg(long, default_value = "loadtest")]
    pub(crate) channel: String,
    /// Client threads of each process.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) threads: u32,
    /// Client processes, because one has only so many file descriptors; 0 for as many as the sessions need. With 1, the
    /// sessions are this process's own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub(crate) processes: u32,
    /// New connections per second; 0 for as fast as possible.
    #[arg(long, default_value_t = 0, value_name = "PER_SECOND")]
    pub(crate) connect_rate: u32,
    /// Sessions between connect and the subscribe's reply at most.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Loopback source addresses, 127.0.0.2 and up; 0 for one per 2,000 sessions.
    #[arg(long, default_value_t = 0)]
    pub(crate) sources: u32,
    /// Give up when no further session comes up for so many seconds.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    pub(crate) connect_timeout: u32,
}

impl ServerArgs {
    /// The target for that many sessions.
    ///
    /// # Errors
    /// Too few file descriptors, or a channel that cannot be named.
    pub(crate) fn target(&self, sessions: u32) -> Result<Target> {
        self.wire.check_channel(&self.channel).map_err(|fault| Error::Usage(format!("--channel: {fault}")))?;
        let path = self.path.as_deref().unwrap_or(self.wire.path());
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Usage("--path: a path that starts with / and has no spaces".to_owned()));
        }
        let usual = || vec![([127, 0, 0, 1], self.wire.port()).into()];
        let servers = if self.server.is_empty() { usual() } else { self.server.clone() };
        if servers.len() > MAX_SERVERS {
            return Err(Error::Usage(format!("--server: at most {MAX_SERVERS} times")));
        }
        let mut target = Target::new(servers, self.wire, path, &self.channel);
        let room = Room::read();
        let processes = self.crew(sessions).processes;
        target.spread_sources(self.sources, sessions, processes);
        room.check(sessions, processes, &target)?;
        Ok(target)
    }

    /// Who holds that many sessions.
    pub(crate) fn crew(&self, sessions: u32) -> Crew {
        let processes = if self.processes == 0 { Room::read().processes(sessions) } else { self.processes };
        Crew { processes, threads: self.threads }
    }

    /// How to open a group of sessions.
    pub(crate) fn opening(&self, sessions: u32, channels: u32) -> Opening {
        Opening {
            sessions,
            channels,
            stalled: false,
            rate: self.connect_rate,
            in_flight: self.in_flight,
            patience: Duration::from_secs(self.connect_timeout.max(1).into()),
        }
    }
}

/// Where messages are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Backend {
    /// Plain PUBLISH.
    Redis,
    /// The server's HTTP API.
    Api,
    /// PUB to a NATS server.
    Nats,
    /// POST to a publisher location of Nchan.
    Nchan,
    /// PUBLISH to an MQTT server, at quality of service 0.
    Mqtt,
}

/// How messages get to the server.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct PublishArgs {
    /// What to publish to.
    #[arg(long, value_enum, default_value_t = Backend::Redis)]
    pub(crate) publish: Backend,
    /// The Redis that the server listens to.
    #[arg(long, default_value = "redis://127.0.0.1:6379", value_name = "URL")]
    #[serde(skip)]
    pub(crate) redis: String,
    /// What stands before a channel's name in Redis.
    #[arg(long, default_value = "push:")]
    pub(crate) redis_prefix: String,
    /// The API's root.
    #[arg(long, default_value = "http://127.0.0.1:8000/api", value_name = "URL")]
    pub(crate) api_url: String,
    /// The API's key.
    #[arg(long, default_value = "", hide_default_value = true)]
    #[serde(skip)]
    pub(crate) api_key: String,
    /// Where NATS, Nchan or MQTT messages go: nats://127.0.0.1:4222, http://127.0.0.1:80/pub or mqtt://127.0.0.1:1883
    /// by default. NATS and MQTT take user:password@.
    #[arg(long, value_name = "URL")]
    #[serde(skip)]
    pub(crate) publish_url: Option<String>,
    /// What is still under way when nothing has arrived for so many seconds is lost.
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    pub(crate) grace: u32,
}

impl PublishArgs {
    /// The backend.
    pub(crate) fn dialect(&self) -> Result<Box<dyn Dialect>> {
        let url = |default| self.publish_url.as_deref().unwrap_or(default);
        Ok(match self.publish {
            Backend::Redis => Box::new(Redis::new(&self.redis, &self.redis_prefix)?),
            Backend::Api => Box::new(Api::new(&self.api_url, &self.api_key)?),
            Backend::Nats => Box::new(Nats::new(url("nats://127.0.0.1:4222"))?),
            Backend::Nchan => Box::new(Nchan::new(url("http://127.0.0.1:80/pub"))?),
            Backend::Mqtt => Box::new(Mqtt::new(url("mqtt://127.0.0.1:1883"))?),
        })
    }

    /// How long to wait for stragglers.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.max(1).into())
    }
}

/// The process to watch, where it may be left out.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct ProbeArgs {
    /// The server's process, for its CPU time, memory and context switches. May be given several times: they are added
    /// up.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Vec<u32>,
}

impl ProbeArgs {
    /// The probe, if a process is named.
    pub(crate) fn probe(&self) -> Result<Option<Probe>> {
        if self.server_pid.is_empty() { Ok(None) } else { Probe::new(&self.server_pid).map(Some) }
    }
}

/// Refuses a payload too small for a stamp, or too large for anybody.
pub(crate) fn check_payload(size: usize) -> Result<()> {
    if (MIN_PAYLOAD..=1 << 20).contains(&size) {
        return Ok(());
    }
    Err(Error::Usage(format!("--payload {size}: between {MIN_PAYLOAD} bytes, which the stamp takes, and 1048576")))
}

/// Refuses more channels than a stamp can tell apart.
pub(crate) fn check_channels(channels: u32) -> Result<()> {
    if channels <= MAX_CHANNELS { Ok(()) } else { Err(Error::Usage(format!("at most {MAX_CHANNELS} channels"))) }
}

/// Refuses what is no rate, or more messages than a sequence number counts.
pub(crate) fn messages(rate: f64, seconds: f64) -> Result<u64> {
    let messages = rate * seconds;
    if rate > 0.0 && seconds > 0.0 && messages >= 1.0 && messages < f64::from(u32::MAX) {
        return Ok(messages.round() as u64);
    }
    Err(Error::Usage(format!("--rate {rate} for --seconds {seconds}: between 1 and 4294967294 messages in all")))
}

/// Arguments of `idle`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// The server's process; may be given several times.
    #[arg(long, value_name = "PID", required = true)]
    pub(crate) server_pid: Vec<u32>,
    /// Sessions in all.
    #[arg(long, default_value_t = 15_000)]
    pub(crate) sessions: u32,
    /// Sessions before the first measurement, which the second is compared with.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) base: u32,
    /// A channel per session instead of one for all.
    #[arg(long)]
    pub(crate) own_channels: bool,
    /// Pause before each measurement, in seconds.
    #[arg(long, default_value_t = 10)]
    pub(crate) pause: u32,
    /// Bound: resident bytes of the server per session.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes_per_session: Option<f64>,
    /// Bound: microseconds of server CPU per connect and subscribe.
    #[arg(long, value_name = "US")]
    pub(crate) max_connect_cpu_us: Option<f64>,
}

/// Arguments of `broadcast`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct BroadcastArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
    /// Subscribers.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) sessions: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload: usize,
    /// Messages per second.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) rate: f64,
    /// How long to publish.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// Publish so many messages as fast as they are taken, instead of at a rate.
    #[arg(long, value_name = "MESSAGES")]
    pub(crate) burst: Option<u32>,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
}

/// Bounds of `broadcast` and `unicast`.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Bounds {
    /// Bound: median latency in microseconds.
    #[arg(long, value_name = "US")]
    pub(crate) max_p50_us: Option<f64>,
    /// Bound: 99th percentile of the latency in microseconds.
    #[arg(long, value_name = "US")]
    pub(crate) max_p99_us: Option<f64>,
    /// Bound: microseconds of server CPU per delivery.
    #[arg(long, value_name = "US", requires = "server_pid")]
    pub(crate) max_cpu_us_per_delivery: Option<f64>,
    /// Bound: deliveries per second.
    #[arg(long, value_name = "COUNT")]
    pub(crate) min_deliveries_per_second: Option<f64>,
}

/// Arguments of `unicast`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct UnicastArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
    /// Sessions, each with its own channel.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) sessions: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload: usize,
    /// Messages per second over all channels.
    #[arg(long, default_value_t = 200.0)]
    pub(crate) rate: f64,
    /// How long to publish.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
}

/// Arguments of `stall`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct StallArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    #[command(flatten)]
    pub(crate) probe: ProbeArgs,
    /// Sessions that read.
    #[arg(long, default_value_t = 100)]
    pub(crate) sessions: u32,
    /// Sessions that stop reading once they are subscribed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) stalled: u32,
    /// Their `SO_RCVBUF` in bytes, so that the server feels them soon.
    #[arg(long, default_value_t = 4096)]
    pub(crate) receive_buffer: usize,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 16_384)]
    pub(crate) payload: usize,
    /// Messages per second.
    #[arg(long, default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// How long to publish, once without and once with the stalled sessions.
    #[arg(long, default_value_t = 15.0)]
    pub(crate) seconds: f64,
    /// Bound: every stalled session is closed with this code.
    #[arg(long, value_name = "CODE")]
    pub(crate) require_code: Option<u16>,
    /// The server's Prometheus port, which counts sessions closed with that code: a session that does not read may
    /// never see its close frame.
    #[arg(long, value_name = "ADDR:PORT", requires = "require_code")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Bound: the reading sessions' 99th percentile rises by at most so many milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) max_p99_shift_ms: Option<f64>,
    /// Bound: the most bytes that the server's memory grows by for each stalled session.
    #[arg(long, value_name = "BYTES", requires = "server_pid")]
    pub(crate) max_bytes_per_stalled: Option<f64>,
}

/// Arguments of `hold`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    /// The servers' processes.
    #[arg(long, value_name = "PID", required = true)]
    pub(crate) server_pid: Vec<u32>,
    /// Sessions.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sessions: u32,
    /// Seconds with nothing but heartbeats.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) hold: u32,
    /// Messages that are broadcast to all sessions, one at a time.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) broadcasts: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload: usize,
    /// At the end, kill the last server's process (SIGKILL) and broadcast to the sessions of the others.
    #[arg(long)]
    pub(crate) kill: bool,
    /// Bound: resident bytes of servers and load generator beyond what they take with no session.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_user_bytes: Option<f64>,
    /// Bound: resident bytes of the servers per session.
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes_per_session: Option<f64>,
}

/// Arguments of `compare-floor`.
#[derive(Debug, Args, Serialize)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    #[command(flatten)]
    pub(crate) publish: PublishArgs,
    /// The server's process; may be given several times.
    #[arg(long, value_name = "PID", required = true)]
    pub(crate) server_pid: Vec<u32>,
    /// Subscribers.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) sessions: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload: usize,
    /// Messages per second of the steady part.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) rate: f64,
    /// How long the steady part takes.
    #[arg(long, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// Messages of the part that publishes as fast as Redis takes them; 0 to leave it out.
    #[arg(long, default_value_t = 200)]
    pub(crate) burst: u32,
    /// Times that both are measured; the report has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Bound: CPU per delivery of the steady part, server over floor.
    #[arg(long, value_name = "RATIO")]
    pub(crate) max_ratio: Option<f64>,
    /// Bound: CPU per delivery of the burst, server over floor.
    #[arg(long, value_name = "RATIO")]
    pub(crate) max_burst_ratio: Option<f64>,
    /// Bound: deliveries per second of the burst.
    #[arg(long, value_name = "COUNT")]
    pub(crate) min_deliveries_per_second: Option<f64>,
}

/// Arguments of `floor`.
#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    /// Where to listen; port 0 for any. The first line on standard output says which.
    #[arg(long, default_value = "127.0.0.1:8100", value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where messages come from.
    #[arg(long, default_value = "redis://127.0.0.1:6379", value_name = "URL")]
    pub(crate) redis: String,
    /// What stands before a channel's name in Redis.
    #[arg(long, default_value = "push:")]
    pub(crate) redis_prefix: String,
    /// The channel that everybody gets, whatever they subscribe to.
    #[arg(long, default_value = "loadtest")]
    pub(crate) channel: String,
    /// End when standard input is closed.
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates_that_publish_nothing_or_without_end_are_refused() {
        assert_eq!(messages(10.0, 20.0).unwrap(), 200);
        for (rate, seconds) in [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (f64::NAN, 1.0), (1e9, 1e9)] {
            assert!(messages(rate, seconds).is_err(), "{rate} {seconds}");
        }
    }

    #[test]
    fn a_bound_that_cannot_be_measured_is_refused_before_the_run() {
        let words = ["tidegate-loadtest", "broadcast", "--max-cpu-us-per-delivery", "5"];
        assert!(Cli::try_parse_from(words).is_err());
    }
}

//! The node: what is started in which order, and how it stops.
//!
//! - here: start and stop;
//! - [`resolve`]: from the configuration to what each part needs;
//! - `reload`: settings that are read again;
//! - [`view`]: the node as the API and the operators see it;
//! - `serve`: the HTTP side of the clients' port;
//! - [`banner`]: what `--dev` tells the person at the terminal.
//!
//! Start: ports, broker, shards, which listen, and only then "started". Stop: not ready and no new
//! connections at once, then the sessions, spread over the drain, then the rest.

pub mod banner;
mod reload;
pub mod resolve;
mod serve;
pub mod view;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_broadcaster::redis::{Receiver, RedisBroker};
use tidegate_broadcaster::{Broker, EmbeddedBroker, Inboxes, ShardInbox};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::admission::{Admission, AdmissionStats};
use crate::api::ApiStats;
use crate::config::reload::ReloadStats;
use crate::config::{Config, EngineType};
use crate::http::{HttpSettings, serve_listener};
use crate::listen::{self, Door, Speaks};
use crate::operator::{self, Lifecycle};
use crate::pressure::PressureStats;
use crate::session::settings::Settings;
use crate::shard::HandOff;
use crate::shard::inbox::{Inbox, Message};
use crate::shard::reactor::{self, Reactor};
use crate::shard::stats::ShardStats;
use view::View;

/// Publications that may wait for a shard, in bytes. Beyond this the broker's connection is not
/// read, which Redis tolerates for a while: its own buffer for a subscriber is 32 MiB by default.
const INBOX_BYTES: usize = 16 * 1024 * 1024;

/// HTTP connections that may wait to be served, and as many refused sockets whose peers read their answer.
const HAND_OFFS: usize = 1024;

/// HTTP connections served at once on the operators' port.
const OPERATOR_CONNECTIONS: usize = 64;

/// What stopping needs behind the drain, to end the threads and the broker's connections: at least this, or the
/// twentieth part of the whole where that is less.
const REST: Duration = Duration::from_millis(500);

/// Why a node does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The system does not give what the node needs.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The broker's settings cannot be used.
    #[error("engine.redis: {0}")]
    Broker(#[from] tidegate_broadcaster::redis::SettingsError),
    /// The log of the embedded broker's histories cannot be used.
    #[error("embedded.path: {0}")]
    Log(#[from] tidegate_broadcaster::LogError),
    /// Something else in the configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// A shard has failed; the log says how.
    #[error("a shard has failed: the node cannot go on")]
    ShardFailed,
}

/// The broker of a node.
enum Engine {
    Embedded(Arc<EmbeddedBroker>),
    Redis(Arc<RedisBroker>),
}

impl Engine {
    fn broker(&self) -> Arc<dyn Broker> {
        match self {
            Self::Embedded(broker) => Arc::clone(broker) as Arc<dyn Broker>,
            Self::Redis(broker) => Arc::clone(broker) as Arc<dyn Broker>,
        }
    }
}

/// A running node.
pub struct Node {
    http: SocketAddr,
    tcp: Option<SocketAddr>,
    operator: SocketAddr,
    admission: Arc<Admission>,
    lifecycle: Arc<Lifecycle>,
    inboxes: Arc<[Arc<Inbox<TcpStream>>]>,
    shards: Arc<[Arc<ShardStats>]>,
    threads: Vec<JoinHandle<()>>,
    engine: Engine,
    has_failed: watch::Receiver<bool>,
    stop_shards: watch::Sender<bool>,
    /// Ends the tasks of the clients' port: no further request on a connection that is kept alive.
    stop_http: watch::Sender<bool>,
    /// Ends the others, the operators' port among them: it answers until the end.
    stop_tasks: watch::Sender<bool>,
    /// What it was started with.
    config: Config,
    /// What sessions are allowed now.
    settings: watch::Sender<Arc<Settings>>,
    reloads: Arc<ReloadStats>,
}

impl Node {
    /// Starts a node. What is not a shard runs on the current tokio runtime.
    ///
    /// # Errors
    /// What the configuration asks for and cannot be had.
    pub async fn start(config: &Config) -> Result<Self, NodeError> {
        let start = Instant::now();
        let start_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        // Before anything else runs, so that a port that is taken costs nothing.
        let count = resolve::shards(config);
        let http_sockets = listen::bind_each(config.http_server.listen(), count)?;
        let tcp_address = config.tcp_server.listen();
        let tcp_sockets = tcp_address.map(|address| listen::bind_each(address, count)).transpose()?.unwrap_or_default();
        let http_address = http_sockets[0].local_addr()?;
        let tcp_address = tcp_sockets.first().map(TcpListener::local_addr).transpose()?;
        let operator_socket = tokio::net::TcpListener::from_std(listen::bind(config.http_server.internal_listen())?)?;

        let inboxes: Arc<[_]> = (0..count).map(|_| Arc::new(Inbox::<TcpStream>::new(INBOX_BYTES))).collect();
        let shards: Arc<[_]> = (0..count).map(|_| Arc::new(ShardStats::default())).collect();
        let (engine, receivers) = start_engine(config, &inboxes)?;
        let mut receivers = receivers.into_iter();
        let broker = engine.broker();

        let settings = watch::Sender::new(Arc::new(resolve::settings(config)));
        let reloads = Arc::<ReloadStats>::default();
        let admission_stats = Arc::new(AdmissionStats::default());
        let caps = resolve::caps(config)?;
        let admission = Arc::new(Admission::new(caps, count, Arc::clone(&admission_stats), start));
        let pressure = Arc::new(PressureStats::default());
        let lifecycle = Arc::new(Lifecycle::default());
        let (stop_tasks, stopped) = watch::channel(false);
        let (stop_http, http_stopped) = watch::channel(false);
        let (stop_shards, shard_stop) = watch::channel(false);
        let (http, hand_offs) = mpsc::channel::<HandOff<TcpStream>>(HAND_OFFS);

        let (failed, has_failed) = watch::channel(false);
        let (refused, refusals) = mpsc::channel(HAND_OFFS);
        let mut tcp_sockets = tcp_sockets.into_iter();
        let mut threads = Vec::with_capacity(count);
        for (id, http_socket) in http_sockets.into_iter().enumerate() {
            let mut listeners = vec![(http_socket, Speaks::Http)];
            listeners.extend(tcp_sockets.next().map(|socket| (socket, Speaks::Raw)));
            let reactor = Reactor {
                setup: resolve::setup(config, &settings.borrow(), id as u8, start, start_unix_ms),
                broker: Arc::clone(&broker),
                receiver: receivers.next(),
                door: Door {
                    listeners,
                    admission: Arc::clone(&admission),
                    inboxes: Arc::clone(&inboxes),
                    refused: refused.clone(),
                    closed_until: None,
                    complained: false,
                },
                inbox: Arc::clone(&inboxes[id]),
                stats: Arc::clone(&shards[id]),
                http: http.clone(),
                runtime: tokio::runtime::Handle::current(),
                stop: shard_stop.clone(),
            };
            let failed = failed.clone();
            threads.push(std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || {
                // A panic is a fault of ours. Its sessions cannot be served any more, and the shard's
                // state is not looked at again.
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reactor::run(reactor)));
                match ended {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => tracing::error!(shard = id, %error, "a shard has failed"),
                    Err(_) => tracing::error!(shard = id, "a shard has panicked"),
                }
                failed.send_replace(true);
            })?);
        }

        tokio::spawn(resolve::monitor(config, &admission, &inboxes, &shards, &pressure)?.run(stopped.clone()));

        let view = Arc::new(View {
            uid: uuid::Uuid::new_v4().to_string(),
            name: resolve::node_name(config),
            broker: Arc::clone(&broker),
            start,
            shards: Arc::clone(&shards),
            inboxes: Arc::clone(&inboxes),
        });
        let api_stats = Arc::new(ApiStats::default());
        let api = serve::api(config, &broker, &view, &api_stats, settings.subscribe())?;
        let site = serve::site(config, api.as_ref(), broker.name());
        tokio::spawn(serve::hand_offs(hand_offs, site, Arc::clone(&admission_stats), http_stopped));

        let sources = operator::Sources {
            shards: Arc::clone(&shards),
            admission: admission_stats,
            pressure: Arc::clone(&pressure),
            api: api_stats,
            broker: Arc::clone(&broker),
            reloads: Arc::clone(&reloads),
        };
        let health = operator::HealthSources {
            lifecycle: Arc::clone(&lifecycle),
            turn_ages: Box::new({
                let shards = Arc::clone(&shards);
                move || view::turn_ages(&shards, start)
            }),
            max_turn_age: view::MAX_TURN_AGE,
            pressure,
            broker: Arc::clone(&broker),
        };
        let operator = operator_socket.local_addr()?;
        let mut operator_router = operator::router(
            Arc::new(operator::Operator { metrics: operator::Metrics::new(sources), health }),
            &resolve::operator_paths(config)?,
        );
        if let Some(api) = api.filter(|_| !config.http_api.external) {
            operator_router = operator_router.merge(api);
        }
        let limit = Arc::new(Semaphore::new(OPERATOR_CONNECTIONS));
        tokio::spawn(serve_listener(operator_socket, operator_router, HttpSettings::default(), limit, stopped.clone()));

        tokio::spawn(serve::refusals(refusals, stopped));
        lifecycle.set_started();
        Ok(Self {
            http: http_address,
            tcp: tcp_address,
            operator,
            admission,
            lifecycle,
            inboxes,
            shards,
            threads,
            engine,
            has_failed,
            stop_shards,
            stop_http,
            stop_tasks,
            config: config.clone(),
            settings,
            reloads,
        })
    }

    /// Where clients connect with WebSocket, and where the API is.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Where clients connect with raw TCP.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// The operators' port.
    pub fn operator_address(&self) -> SocketAddr {
        self.operator
    }

    /// The broker.
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.engine.broker()
    }

    /// Waits until a shard has failed. Its sessions are lost then, and the node should end, so that
    /// whatever watches over it starts another one.
    pub async fn failed(&self) {
        let mut failed = self.has_failed.clone();
        if failed.wait_for(|failed| *failed).await.is_err() {
            // Every shard has ended in good order.
            std::future::pending::<()>().await;
        }
    }

    /// What the shards count.
    pub fn shards(&self) -> &[Arc<ShardStats>] {
        &self.shards
    }

    /// The door.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Stops: no new connections from now on, the sessions closed over `shutdown.drain`, then the rest. It is over
    /// within `shutdown.timeout`, or a tenth of a second where that is less.
    pub async fn stop(mut self) {
        let (whole, over) = (self.config.shutdown.whole(), self.config.shutdown.drain_over());
        let began = Instant::now();
        self.lifecycle.set_draining();
        self.admission.drain();
        self.stop_http.send_replace(true);
        let connections = self.admission.connections();
        tracing::info!(connections, ?over, at_most = ?whole, "draining");
        for inbox in self.inboxes.iter() {
            inbox.send(Message::Drain(over));
        }
        let deadline = began + whole - REST.min(whole / 20);
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while self.admission.connections() > 0 && Instant::now() < deadline {
            ticks.tick().await;
        }
        let left = self.admission.connections();
        if left > 0 {
            tracing::warn!(connections = left, "connections are dropped: their peers have not closed in time");
        }
        let deadline = (began + whole).max(Instant::now() + REST.min(whole / 20).max(REST / 5));
        if tokio::time::timeout_at(deadline.into(), self.stop_rest()).await.is_err() {
            tracing::warn!("not everything has ended within shutdown.timeout; the process ends all the same");
        }
        self.stop_tasks.send_replace(true);
        tracing::info!(took_ms = began.elapsed().as_millis() as u64, "stopped");
    }

    /// Ends the shards, and their listeners with them, and the broker.
    async fn stop_rest(&mut self) {
        self.stop_shards.send_replace(true);
        for inbox in self.inboxes.iter() {
            inbox.send(Message::Inspect(Box::new(|_| {}))); // wakes it
        }
        // Looked at, not waited for: a thread that hangs must not keep the process.
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            ticks.tick().await;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard's thread had panicked");
            }
        }
        match &self.engine {
            Engine::Redis(broker) => broker.shutdown().await,
            Engine::Embedded(broker) => {
                let broker = Arc::clone(broker);
                // It waits for the disk.
                if tokio::task::spawn_blocking(move || broker.close()).await.is_err() {
                    tracing::error!("closing the history's log has panicked");
                }
            }
        }
    }
}

/// The broker, and what has to run on the shards' threads to receive its messages.
fn start_engine(config: &Config, inboxes: &Arc<[Arc<Inbox<TcpStream>>]>) -> Result<(Engine, Vec<Receiver>), NodeError> {
    let inboxes: Inboxes = inboxes.iter().map(|inbox| Arc::clone(inbox) as Arc<dyn ShardInbox>).collect();
    Ok(match config.engine.kind {
        EngineType::Memory => {
            let mut broker = EmbeddedBroker::new(inboxes)
                .with_max_payload(config.redis_publish.max_payload)
                .with_history_memory(config.embedded.history_memory_limit);
            if let Some(log) = resolve::log(config) {
                broker = broker.with_log(log)?;
            }
            (Engine::Embedded(Arc::new(broker)), Vec::new())
        }
        EngineType::Redis => {
            let (broker, receivers) = RedisBroker::start(resolve::redis(config)?, inboxes)?;
            (Engine::Redis(broker), receivers)
        }
    })
}

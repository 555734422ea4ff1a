//! The HTTP side of the clients' port: what is no WebSocket, and what is refused.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidegate_broadcaster::Broker;
use tidegate_protocol::code::ErrorCode;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc, watch};

use super::NodeError;
use super::view::View;
use crate::admission::{AdmissionStats, RefusalReason};
use crate::api::{
    self, Api, ApiError, ApiSettings, ApiStats, Auth, Idempotency, IdempotencySettings, NodeView, Policy,
};
use crate::config::Config;
use crate::http::demo::Demo;
use crate::http::{HttpSettings, serve_connection, site};
use crate::refusal;
use crate::session::settings::Settings;
use crate::shard::HandOff;

/// HTTP connections served at once on the clients' port; further ones get a 503.
const HTTP_CONNECTIONS: usize = 4096;

/// How long the peer of a refused connection has to read its answer.
const REFUSAL_READ: Duration = Duration::from_secs(1);

/// The server API; `None` where it is switched off.
///
/// # Errors
/// A prefix that is no path.
pub(super) fn api(
    config: &Config,
    broker: &Arc<dyn Broker>,
    view: &Arc<View>,
    stats: &Arc<ApiStats>,
    rules: watch::Receiver<Arc<Settings>>,
) -> Result<Option<Router>, NodeError> {
    if config.http_api.disabled {
        return Ok(None);
    }
    let prefix = config.http_api.handler_prefix.trim_end_matches('/').to_owned();
    site::check_prefix(&prefix).map_err(|expected| {
        NodeError::Config(format!("http_api.handler_prefix is {prefix:?}, which is not {expected}"))
    })?;
    let auth = if config.http_api.insecure { Auth::Insecure } else { Auth::keys([config.http_api.key.clone()]) };
    let api = Api {
        settings: ApiSettings { prefix, presence_limit: config.client.presence_max_clients, ..ApiSettings::default() },
        auth,
        broker: Arc::clone(broker),
        node: Arc::clone(view) as Arc<dyn NodeView>,
        policy: Arc::new(move |channel| {
            if channel.is_empty() {
                return Err(ErrorCode::BadRequest.into());
            }
            let rules = &rules.borrow().channels;
            let options = rules.options(channel).map_err(ApiError::from)?;
            Ok(Policy {
                retention: rules.0.retention(options),
                meta_ttl: rules.0.meta_ttl(options),
                delta: options.delta_publish,
                presence: options.presence,
            })
        }),
        idempotency: Idempotency::new(IdempotencySettings::default(), Arc::clone(stats)),
        stats: Arc::clone(stats),
    };
    Ok(Some(api::router(Arc::new(api))))
}

/// What the clients' port serves beside WebSocket.
pub(super) fn site(config: &Config, api: Option<&Router>, broker: &str) -> Router {
    let demo = config.demo.enabled.then(|| Demo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        broker: broker.to_owned(),
        api_key: (!config.http_api.key.is_empty()).then(|| config.http_api.key.clone()),
        api_prefix: config.http_api.handler_prefix.clone(),
        websocket_path: config.websocket.handler_prefix.clone(),
        tcp_address: config.tcp_server.listen().map(|address| address.to_string()),
        redis_command: super::banner::redis_publish(config),
        redis_prefix: config.redis_publish.prefix.clone(),
    });
    let api = api.filter(|_| config.http_api.external).cloned();
    site::router(&config.websocket.handler_prefix, api, demo.as_ref())
}

/// Serves the requests that shards hand over, each on a task of its own.
pub(super) async fn hand_offs(
    mut hand_offs: mpsc::Receiver<HandOff<TcpStream>>,
    router: Router,
    admission: Arc<AdmissionStats>,
    stop: watch::Receiver<bool>,
) {
    let limit = Arc::new(Semaphore::new(HTTP_CONNECTIONS));
    while let Some(HandOff { mut socket, bytes, permit: place }) = hand_offs.recv().await {
        let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else {
            admission.refuse(RefusalReason::HttpLimit);
            let mut answer = Vec::new();
            refusal::write_busy(RefusalReason::HttpLimit.label(), 1, &mut answer);
            // A courtesy: the socket's buffer is empty, and nobody waits for it.
            let _ = std::io::Write::write(&mut socket, &answer);
            continue;
        };
        match tokio::net::TcpStream::from_std(socket) {
            Ok(socket) => {
                let connection =
                    serve_connection(socket, bytes, router.clone(), HttpSettings::default(), stop.clone(), permit);
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => tracing::warn!(%error, "a request cannot be served"),
        }
    }
}

/// Lets the peers of refused connections read their answer: a socket that is dropped with unread
/// input resets the connection, and the answer is lost.
pub(super) async fn refusals(mut refused: mpsc::Receiver<TcpStream>, mut stop: watch::Receiver<bool>) {
    let limit = Arc::new(Semaphore::new(super::HAND_OFFS));
    loop {
        let socket = tokio::select! {
            socket = refused.recv() => socket,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Some(socket) = socket else { return };
        // With as many waiting already, this one's answer may be lost.
        let Ok(permit) = Arc::clone(&limit).try_acquire_owned() else { continue };
        let Ok(mut socket) = tokio::net::TcpStream::from_std(socket) else { continue };
        tokio::spawn(async move {
            let mut sink = [0; 1024];
            let read_all = async { while socket.read(&mut sink).await.is_ok_and(|n| n > 0) {} };
            // Whether it was read in time makes no difference any more.
            let _ = tokio::time::timeout(REFUSAL_READ, read_all).await;
            drop(permit);
        });
    }
}

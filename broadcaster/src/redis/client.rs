//! A client of fred's with one connection, for everything but subscriptions.

use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, ServerConfig, UnresponsiveConfig};
use fred::types::{Builder, ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::time::timeout;

use super::settings::{Endpoint, RedisSettings};

/// A command that fred need not know.
pub(crate) fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

/// A client that ends with its connection: no reconnect policy, one attempt per command. To fred every server is one
/// that stands alone: where a command belongs is decided here, so that it is never repeated behind our back.
pub(crate) async fn connect(endpoint: &Endpoint, settings: &RedisSettings) -> Result<(Client, ConnectHandle), Error> {
    let config = Config {
        server: ServerConfig::new_centralized(endpoint.host.clone(), endpoint.port),
        username: endpoint.user.clone(),
        password: endpoint.password.clone(),
        database: endpoint.db,
        fail_fast: true,
        ..Config::default()
    };
    let client = Builder::from_config(config)
        .set_performance_config(PerformanceConfig {
            default_command_timeout: settings.io_timeout,
            ..PerformanceConfig::default()
        })
        .set_connection_config(ConnectionConfig {
            connection_timeout: settings.connect_timeout,
            internal_command_timeout: settings.io_timeout,
            max_command_attempts: 1,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(settings.io_timeout),
                interval: settings.io_timeout / 4,
            },
            ..ConnectionConfig::default()
        })
        .build()?;
    let task = client.connect();
    if let Err(error) = client.wait_for_connect().await {
        task.abort();
        return Err(error);
    }
    Ok((client, task))
}

/// Ends a client in order.
pub(crate) async fn close(client: &Client, task: ConnectHandle, settings: &RedisSettings) {
    if timeout(settings.io_timeout, client.quit()).await.is_err() {
        tracing::debug!("Redis did not answer QUIT in time");
    }
    task.abort();
}

/// Asks a server one question, over a connection of its own, within a time.
pub(crate) async fn ask(
    endpoint: &Endpoint,
    settings: &RedisSettings,
    name: &'static str,
    words: &[&str],
    limit: Duration,
) -> Result<Value, Error> {
    let question = async {
        let (client, task) = connect(endpoint, settings).await?;
        let words = words.iter().map(|&word| Value::from(word)).collect::<Vec<_>>();
        let answer = client.custom(command(name), words).await;
        task.abort();
        answer
    };
    timeout(limit, question).await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer in time")))
}

//! Getting a subscriber connection to the point where it can subscribe.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::settings::{Endpoint, RedisSettings};
use super::wire::{Item, Parsed, WireError, command, parse};

/// How the connection is named in `CLIENT LIST`.
const CLIENT_NAME: &[u8] = b"tidegate-subscriber";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection to {0} within {1:?}")]
    ConnectTimeout(String, Duration),
    #[error("no connection to {0}: {1}")]
    Connect(String, io::Error),
    #[error("{0} does not answer within {1:?}")]
    Silent(String, Duration),
    #[error("{0} closed the connection: {1}")]
    Closed(String, io::Error),
    #[error("{0} refuses {1}: {2}")]
    Refused(String, &'static str, String),
    #[error("{0} is no Redis: {1}")]
    NoRedis(String, WireError),
}

/// Connects and authenticates. Publish and subscribe know no databases, so none is selected.
pub(crate) async fn connect(endpoint: &Endpoint, settings: &RedisSettings) -> Result<TcpStream, ConnectError> {
    let name = endpoint.to_string();
    let mut stream =
        match timeout(settings.connect_timeout, TcpStream::connect((endpoint.host.as_str(), endpoint.port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(ConnectError::Connect(name, error)),
            Err(_) => return Err(ConnectError::ConnectTimeout(name, settings.connect_timeout)),
        };
    stream.set_nodelay(true).map_err(|error| ConnectError::Connect(name.clone(), error))?;
    match timeout(settings.io_timeout, greet(&mut stream, endpoint, &name)).await {
        Ok(greeted) => greeted.map(|()| stream),
        Err(_) => Err(ConnectError::Silent(name, settings.io_timeout)),
    }
}

async fn greet(stream: &mut TcpStream, endpoint: &Endpoint, name: &str) -> Result<(), ConnectError> {
    let mut out = BytesMut::new();
    let mut expected: Vec<&'static str> = Vec::new();
    if let Some(password) = &endpoint.password {
        match &endpoint.user {
            Some(user) => command(&mut out, &[b"AUTH", user.as_bytes(), password.as_bytes()]),
            None => command(&mut out, &[b"AUTH", password.as_bytes()]),
        }
        expected.push("AUTH");
    }
    command(&mut out, &[b"CLIENT", b"SETNAME", CLIENT_NAME]);
    expected.push("CLIENT");
    // It tells whether the server is ready: one that is loading its data refuses it.
    command(&mut out, &[b"PING"]);
    expected.push("PING");
    stream.write_all(&out).await.map_err(|error| ConnectError::Closed(name.to_owned(), error))?;

    let mut buffer = BytesMut::with_capacity(1024);
    for command in expected {
        let (item, taken) = loop {
            match parse(&buffer, 0) {
                Ok(Parsed::Item(item, taken)) => break (item, taken),
                Ok(Parsed::Incomplete(_)) => {}
                Err(error) => return Err(ConnectError::NoRedis(name.to_owned(), error)),
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) => return Err(ConnectError::Closed(name.to_owned(), io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(ConnectError::Closed(name.to_owned(), error)),
            }
        };
        let answer = buffer.split_to(taken);
        if let Item::Error(text) = item {
            let text = String::from_utf8_lossy(&answer[text]).into_owned();
            // A user who may do neither of these two can still subscribe, and an old server has no names.
            let harmless = match command {
                "CLIENT" => text.starts_with("NOPERM") || text.starts_with("ERR"),
                "PING" => text.starts_with("NOPERM"),
                _ => false,
            };
            if !harmless {
                return Err(ConnectError::Refused(name.to_owned(), command, text));
            }
        }
    }
    Ok(())
}

//! One HTTP/1.1 connection from its first request to its end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

use super::prefixed::Prefixed;

/// Bounds of one HTTP connection.
#[derive(Debug, Clone, Copy)]
pub struct HttpSettings {
    /// How long the head of a request may take, and how long a connection may idle between two requests.
    pub header_timeout: Duration,
    /// How many bytes the head of a request may have.
    pub max_header_bytes: usize,
    /// How long a connection may last at all. The request in hand is finished; what is not
    /// finished after another `header_timeout` is cut off. It bounds those who read their answer slowly.
    pub max_age: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 16 * 1024,
            max_age: Duration::from_secs(3600),
        }
    }
}

/// Serves the requests of one connection until it ends.
///
/// `already_read` are the bytes that the caller took from the stream; the first request starts
/// with them. Requests are answered one after the other, the connection is kept alive between
/// them. `permit` bounds the number of connections at once and is given back at the end; whoever
/// has none to give refuses the connection before it comes here.
///
/// Once `stop` holds `true`, or its sender is gone, the request in hand is answered and the connection closed.
pub async fn serve_connection<S>(
    stream: S,
    already_read: Bytes,
    router: Router,
    settings: HttpSettings,
    mut stop: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Prefixed::new(already_read, stream));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.header_timeout)
            .max_header_size(settings.max_header_bytes)
            .serve_connection(io, TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        result = connection.as_mut() => Some(result),
        _ = stop.wait_for(|stop| *stop) => None,
        () = tokio::time::sleep(settings.max_age) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(settings.header_timeout, connection).await {
                Ok(result) => result,
                Err(_) => {
                    debug!("an HTTP connection did not end in time and was cut off");
                    Ok(())
                }
            }
        }
    };
    if let Err(error) = result {
        // The peer's fault nearly always: half a request, a reset, no request in time.
        debug!(%error, "an HTTP connection ended with an error");
    }
    drop(permit);
}

/// Accepts connections and serves each of them, until `stop` holds `true`.
///
/// For listeners of their own, such as the operators' port. At most as many connections as
/// `limit` has permits are served at once; further ones wait in the kernel's queue.
///
/// # Errors
/// An error of the listener itself. Errors that concern one connection, or a lack of
/// descriptors, are logged and survived.
pub async fn serve_listener(
    listener: TcpListener,
    router: Router,
    settings: HttpSettings,
    limit: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    loop {
        let permit = tokio::select! {
            permit = limit.clone().acquire_owned() => permit.map_err(io::Error::other)?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                // An answer is one write; waiting for more only delays it.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "TCP_NODELAY could not be set");
                }
                tokio::spawn(serve_connection(stream, Bytes::new(), router.clone(), settings, stop.clone(), permit));
            }
            Err(error) if is_transient(&error) => {
                warn!(%error, "a connection could not be accepted");
                // Out of descriptors, accept fails again at once and for as long: don't spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the next accept may succeed: the one connection was at fault, or a resource is short.
fn is_transient(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) || Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno))
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    fn router() -> Router {
        Router::new().route("/hello", get(|| async { "hello" })).route("/echo", post(|body: Bytes| async move { body }))
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn permit() -> (Arc<Semaphore>, OwnedSemaphorePermit) {
        let limit = Arc::new(Semaphore::new(1));
        let permit = limit.clone().try_acquire_owned().unwrap();
        (limit, permit)
    }

    /// Reads until `text` has come in.
    async fn read_until(client: &mut TcpStream, text: &str) -> String {
        let mut read = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&read).contains(text) {
                assert_ne!(client.read_buf(&mut read).await.unwrap(), 0, "ended early: {read:?}");
            }
        };
        tokio::time::timeout(WAIT, reading).await.expect("an answer in time");
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn a_request_begins_with_the_bytes_read_already_and_the_connection_is_kept() {
        let (mut client, server) = pair().await;
        let (limit, permit) = permit();
        let (_stop, stopped) = watch::channel(false);
        let first = Bytes::from_static(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-le");
        let serving = tokio::spawn(serve_connection(server, first, router(), HttpSettings::default(), stopped, permit));
        client.write_all(b"ngth: 5\r\n\r\n12345").await.unwrap();
        assert!(read_until(&mut client, "12345").await.starts_with("HTTP/1.1 200 OK"));
        client.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(read_until(&mut client, "hello").await.starts_with("HTTP/1.1 200 OK"));
        assert_eq!(limit.available_permits(), 0);
        drop(client);
        tokio::time::timeout(WAIT, serving).await.unwrap().unwrap();
        assert_eq!(limit.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_in_time_ends_the_connection() {
        let (mut client, server) = pair().await;
        let (limit, permit) = permit();
        let (_stop, stopped) = watch::channel(false);
        let settings = HttpSettings { header_timeout: Duration::from_millis(20), ..HttpSettings::default() };
        let half = Bytes::from_static(b"GET /hello HTTP/1.1\r\nho");
        let serving = tokio::spawn(serve_connection(server, half, router(), settings, stopped, permit));
        tokio::time::timeout(WAIT, serving).await.unwrap().unwrap();
        assert_eq!(limit.available_permits(), 1);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(!String::from_utf8_lossy(&rest).contains("200"));
    }

    #[tokio::test]
    async fn stop_ends_idle_connections_and_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let limit = Arc::new(Semaphore::new(4));
        let serving =
            tokio::spawn(serve_listener(listener, router(), HttpSettings::default(), limit.clone(), stopped.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        read_until(&mut client, "hello").await;
        stop.send(true).unwrap();
        tokio::time::timeout(WAIT, serving).await.unwrap().unwrap().unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(WAIT, client.read_to_end(&mut rest)).await;
        assert_eq!(ended.unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn an_oversized_head_is_refused() {
        let (mut client, server) = pair().await;
        let (_limit, permit) = permit();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(serve_connection(server, Bytes::new(), router(), HttpSettings::default(), stopped, permit));
        let head = format!("GET /hello HTTP/1.1\r\nhost: a\r\nx-long: {}\r\n\r\n", "a".repeat(20_000));
        client.write_all(head.as_bytes()).await.unwrap();
        assert!(read_until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 431"));
    }
}

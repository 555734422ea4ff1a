//! A client that comes back to where it was, and notes what it gets: publications that begin with their number.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use tidegate_protocol::codec::delimited::{Delimited, split_delimited};
use tidegate_protocol::message::{Command, ConnectRequest, Publication, Reply, SubscribeRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::within;

/// How long everything may take to come.
const LIMIT: Duration = Duration::from_secs(60);

/// What a session has received: the numbers of its publications, and what went wrong.
#[derive(Debug, Default)]
pub struct Received {
    /// In the order in which they came.
    pub numbers: Vec<u64>,
    /// How often it was subscribed.
    pub subscribed: usize,
    pub wrong: Option<String>,
}

/// Readers of `kept:0`, `kept:1` and so on, each of one channel.
pub struct Readers(Vec<(u64, Arc<Mutex<Received>>)>);

impl Readers {
    /// So many of them, spread over so many channels; waits until all have subscribed.
    pub fn start(runtime: &Runtime, address: SocketAddr, sessions: u64, channels: u64) -> Self {
        let readers = (0..sessions).map(|number| {
            let (channel, received) = (number % channels, Arc::<Mutex<Received>>::default());
            runtime.spawn(Reader::new(format!("kept:{channel}"), Arc::clone(&received)).run(address));
            (channel, received)
        });
        let readers = Self(readers.collect());
        readers.until("everybody has subscribed", |received, _| received.subscribed > 0);
        readers
    }

    /// Waits until something holds of every reader and its channel. Fails where one has met with something wrong.
    pub fn until(&self, what: &str, holds: impl Fn(&Received, u64) -> bool) {
        within(LIMIT, what, || {
            let all = self.0.iter().all(|(channel, received)| {
                let received = received.lock().unwrap();
                assert_eq!(received.wrong, None, "{what}");
                holds(&received, *channel)
            });
            all.then_some(())
        });
    }

    /// Waits until everything has come of the numbers below `count`, which went to the channels in turn, and holds each reader to
    /// have got those of its channel once and in order.
    pub fn have_got_all(&self, count: u64, channels: u64) {
        let of = |channel: u64| (channel..count).step_by(channels as usize);
        self.until("everything has come", |received, channel| received.numbers.len() >= of(channel).count());
        for (channel, received) in &self.0 {
            let numbers = &received.lock().unwrap().numbers;
            assert!(
                numbers.iter().copied().eq(of(*channel)),
                "channel {channel}: once each, and in order: {numbers:?}"
            );
        }
    }
}

/// A client as an SDK is one: it remembers where it is, and when its subscription ends it subscribes again from there.
pub struct Reader {
    channel: String,
    received: Arc<Mutex<Received>>,
    position: Option<(u64, String)>,
    id: u32,
    retry: bool,
}

impl Reader {
    pub fn new(channel: String, received: Arc<Mutex<Received>>) -> Self {
        Self { channel, received, position: None, id: 1, retry: false }
    }

    /// Connects over raw TCP and stays.
    pub async fn run(mut self, address: SocketAddr) {
        if let Err(error) = self.read(address).await {
            self.wrong(format!("the connection ended: {error}"));
        }
    }

    async fn read(&mut self, address: SocketAddr) -> std::io::Result<()> {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let connect = Command { id: 1, connect: Some(ConnectRequest::default()), ..Command::default() };
        stream.write_all(&connect.encode_length_delimited_to_vec()).await?;
        stream.write_all(&self.subscribe()).await?;
        let (mut input, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            let n = stream.read(&mut buffer).await?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            input.extend_from_slice(&buffer[..n]);
            let (mut done, mut answers) = (0, Vec::new());
            while let Ok(Delimited::Message { body, consumed }) = split_delimited(&input[done..], usize::MAX >> 1) {
                let reply = Reply::decode(body).unwrap();
                done += consumed;
                self.take(reply, body_is_ping(consumed), &mut answers);
            }
            input.drain(..done);
            if std::mem::take(&mut self.retry) {
                // SDKs wait before they try again.
                tokio::time::sleep(Duration::from_millis(50)).await;
                answers.extend(self.subscribe());
            }
            if !answers.is_empty() {
                stream.write_all(&answers).await?;
            }
        }
    }

    fn subscribe(&mut self) -> Vec<u8> {
        self.id += 1;
        let (offset, epoch) = self.position.clone().unwrap_or_default();
        let request = SubscribeRequest {
            channel: self.channel.clone(),
            recoverable: true,
            recover: self.position.is_some(),
            offset,
            epoch,
            ..SubscribeRequest::default()
        };
        Command { id: self.id, subscribe: Some(request), ..Command::default() }.encode_length_delimited_to_vec()
    }

    fn take(&mut self, reply: Reply, ping: bool, answers: &mut Vec<u8>) {
        if ping {
            return answers.push(0);
        }
        if let Some(error) = &reply.error {
            if !error.temporary {
                return self.wrong(format!("{error:?}"));
            }
            self.retry = true;
            return;
        }
        if let Some(result) = reply.subscribe {
            if result.was_recovering && !result.recovered {
                self.wrong(format!("not recovered from {:?}: {result:?}", self.position));
            }
            self.received.lock().unwrap().subscribed += 1;
            self.position = Some((result.offset, result.epoch));
            result.publications.iter().for_each(|publication| self.publication(publication));
        }
        let Some(push) = reply.push else { return };
        if let Some(publication) = &push.r#pub {
            self.publication(publication);
        }
        if let Some(unsubscribe) = push.unsubscribe {
            assert_eq!(unsubscribe.code, 2500);
            answers.extend(self.subscribe());
        }
    }

    fn publication(&mut self, publication: &Publication) {
        let text = std::str::from_utf8(&publication.data).unwrap();
        let number = text.split(' ').next().unwrap().parse().unwrap();
        self.received.lock().unwrap().numbers.push(number);
        if let Some((offset, _)) = &mut self.position {
            *offset = publication.offset;
        }
    }

    fn wrong(&self, what: String) {
        self.received.lock().unwrap().wrong.get_or_insert(what);
    }
}

/// An empty message is a ping.
fn body_is_ping(consumed: usize) -> bool {
    consumed == 1
}

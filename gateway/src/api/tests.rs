//! The API through its router, with a broker that notes what it is given.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_broadcaster::{
    Answer, Attendance, BrokerError, BrokerHealth, BrokerStats, Change, Channel, HistoryFuture, HistoryQuery, Interest,
    InterestMap, Presence, PresenceStats, PublishFuture, PublishRequest, Published, ShardId,
};
use tidegate_protocol::message::ClientInfo;
use tower::ServiceExt;

use super::method::Method;
use super::stats::{Outcome, Rejection};
use super::view::Asked;
use super::*;

/// Notes publishes; the channel `away` fails; can wait with its answers until several publishes are there.
#[derive(Default)]
pub(crate) struct Notebook {
    published: Mutex<Vec<PublishRequest>>,
    interest: InterestMap,
    stats: BrokerStats,
    history: AtomicBool,
    /// Publishes are answered only once so many have come in.
    wait_for: AtomicU64,
    came_in: Arc<tokio::sync::Notify>,
    /// Whether the broker says that it is away.
    pub(crate) away: AtomicBool,
}

impl Notebook {
    fn payloads(&self) -> Vec<(String, String)> {
        let published = self.published.lock().unwrap();
        let text = |data: &Bytes| String::from_utf8_lossy(data).into_owned();
        published.iter().map(|request| (request.channel.to_string(), text(&request.data))).collect()
    }
}

impl Broker for Notebook {
    fn subscribe(&self, _: &Channel, _: ShardId) -> Interest {
        Interest::Confirmed
    }

    fn unsubscribe(&self, _: &Channel, _: ShardId) {}

    fn publish(&self, request: PublishRequest) -> PublishFuture {
        if &*request.channel == "away" {
            return Box::pin(async { Err(BrokerError::Disconnected("connection refused".into())) });
        }
        let mut published = self.published.lock().unwrap();
        published.push(request);
        let offset = if self.history.load(SeqCst) { published.len() as u64 } else { 0 };
        let answer = Published { offset, epoch: if offset > 0 { "e".to_owned() } else { String::new() } };
        let (there, wanted, came_in) = (published.len() as u64, self.wait_for.load(SeqCst), self.came_in.clone());
        Box::pin(async move {
            if there < wanted {
                came_in.notified().await;
            } else {
                came_in.notify_waiters();
            }
            Ok(answer)
        })
    }

    fn history(&self, _: &Channel, _: HistoryQuery) -> HistoryFuture {
        Box::pin(async { Err(BrokerError::Refused("a notebook has no history".into())) })
    }

    fn remove_history(&self, _: &Channel) -> Answer<()> {
        Box::pin(async { Ok(()) })
    }

    fn attend(&self, _: &Channel, _: &Arc<ClientInfo>, _: Change, _: Attendance) {}

    fn presence(&self, _: &Channel, limit: u32) -> Answer<Presence> {
        let info = |n: u32| Arc::new(ClientInfo { client: format!("c{n}"), user: "u".into(), ..ClientInfo::default() });
        let members = if limit < 2 { Vec::new() } else { (0..2).map(info).collect() };
        Box::pin(async { Ok(Presence { clients: 2, members }) })
    }

    fn presence_stats(&self, _: &Channel) -> Answer<PresenceStats> {
        Box::pin(async { Ok(PresenceStats { clients: 2, users: 1 }) })
    }

    fn interest(&self) -> &InterestMap {
        &self.interest
    }

    fn health(&self) -> BrokerHealth {
        if self.away.load(SeqCst) {
            return BrokerHealth::Degraded { since: Duration::from_secs(12), reason: "connection refused".into() };
        }
        BrokerHealth::Healthy
    }

    fn stats(&self) -> &BrokerStats {
        &self.stats
    }

    fn name(&self) -> &'static str {
        "redis"
    }
}

struct Node;

impl NodeView for Node {
    fn info(&self) -> NodeInfo {
        NodeInfo { uid: "u-1".to_owned(), num_clients: 3, ..NodeInfo::default() }
    }

    fn channels(&self, pattern: Option<Pattern>) -> Asked<ChannelCounts> {
        Box::pin(async move {
            let all = [("news:a", 2), ("news:b", 1), ("chat", 5)];
            let wanted = all.iter().filter(|(name, _)| pattern.as_ref().is_none_or(|pattern| pattern.matches(name)));
            Ok(wanted.map(|(name, count)| ((*name).to_owned(), *count)).collect())
        })
    }
}

struct Fixture {
    broker: Arc<Notebook>,
    api: Arc<Api>,
    router: Router,
}

fn fixture() -> Fixture {
    fixture_with(|_| {})
}

fn fixture_with(change: impl FnOnce(&mut Api)) -> Fixture {
    let (broker, stats) = (Arc::new(Notebook::default()), Arc::new(ApiStats::default()));
    let mut api = Api {
        settings: ApiSettings::default(),
        auth: Auth::keys(["key".to_owned()]),
        broker: broker.clone(),
        node: Arc::new(Node),
        policy: Arc::new(|channel| match channel {
            "" => Err(ApiError::bad_request("channel is empty")),
            name if name.len() > 255 => Err(ApiError::bad_request("channel is too long")),
            name if name.starts_with("unknown:") => Err(ApiError::unknown_channel("unknown channel")),
            name => Ok(Policy { presence: name.starts_with("room"), ..Policy::default() }),
        }),
        idempotency: Idempotency::new(IdempotencySettings::default(), stats.clone()),
        stats,
    };
    change(&mut api);
    let api = Arc::new(api);
    Fixture { broker, router: router(api.clone()), api }
}

impl Fixture {
    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn text(&self, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        self.send(Request::post(path).header("X-API-Key", "key").body(body.into()).unwrap()).await
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let (status, text) = self.text(path, body).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// Posts, expects 200 and gives the answer.
    async fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }
}

fn code(answer: &Value) -> u64 {
    answer["error"]["code"].as_u64().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[tokio::test]
async fn publish_hands_on_channel_data_and_tags_untouched() {
    let fixture = fixture();
    let body = r#"{"channel":"news","data":{ "a": [1.50, "\u00e9"] },"tags":{"lang":"de"}, "unknown member": 1}"#;
    assert_eq!(fixture.text("/api/publish", body).await, (StatusCode::OK, r#"{"result":{}}"#.to_owned()));
    let published = fixture.broker.published.lock().unwrap();
    let PublishRequest { channel, data, tags, info, .. } = &published[0];
    assert_eq!((&**channel, &data[..]), ("news", br#"{ "a": [1.50, "\u00e9"] }"#.as_slice()));
    assert_eq!(tags.iter().collect::<Vec<_>>(), [(&"lang".to_owned(), &"de".to_owned())]);
    assert!(info.is_none());
}

#[tokio::test]
async fn publish_answers_with_offset_and_epoch_where_there_is_history() {
    let fixture = fixture();
    fixture.broker.history.store(true, SeqCst);
    let answer = fixture.ok("/api/publish", json!({"channel": "c", "b64data": "AP8="})).await;
    assert_eq!(answer, json!({"result": {"offset": 1, "epoch": "e"}}));
    assert_eq!(fixture.broker.published.lock().unwrap()[0].data, [0, 255].as_slice());
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_with_its_code() {
    let fixture = fixture();
    for (body, expected) in [
        (json!({"channel": "c"}), 107),
        (json!({"data": 1}), 107),
        (json!({"channel": "", "data": 1}), 107),
        (json!({"channel": "c".repeat(300), "data": 1}), 107),
        (json!({"channel": "unknown:c", "data": 1}), 102),
        (json!({"channel": "c", "b64data": "?"}), 107),
        (json!({"channel": "c", "data": 1, "idempotency_key": "k".repeat(257)}), 107),
        (json!({"channel": "away", "data": 1}), 100),
    ] {
        assert_eq!(code(&fixture.ok("/api/publish", body.clone()).await), expected, "{body}");
    }
    assert!(fixture.broker.payloads().is_empty());
    assert_eq!(fixture.api.stats.calls(Method::Publish, Outcome::ClientError), 7);
    assert_eq!(fixture.api.stats.calls(Method::Publish, Outcome::ServerError), 1);
}

#[tokio::test]
async fn an_idempotency_key_publishes_once_per_channel() {
    let fixture = fixture();
    fixture.broker.history.store(true, SeqCst);
    let body = json!({"channel": "c", "data": 1, "idempotency_key": "k"});
    let first = fixture.ok("/api/publish", body.clone()).await;
    assert_eq!(fixture.ok("/api/publish", body).await, first);
    let both = json!({"channels": ["c", "d"], "data": 1, "idempotency_key": "k"});
    fixture.ok("/api/broadcast", both).await;
    let channels: Vec<_> = fixture.broker.payloads().into_iter().map(|(channel, _)| channel).collect();
    assert_eq!(channels, ["c", "d"]);
}

#[tokio::test]
async fn broadcast_answers_for_each_channel_in_order() {
    let fixture = fixture();
    let body = json!({"channels": ["a", "", "away", "unknown:c", "b"], "data": {"n": 1}});
    let answer = fixture.ok("/api/broadcast", body).await;
    let responses = answer["result"]["responses"].as_array().unwrap();
    assert_eq!(responses[0], json!({"result": {}}));
    assert_eq!(responses[1..4].iter().map(code).collect::<Vec<_>>(), [107, 100, 102]);
    assert_eq!(responses[4], json!({"result": {}}));
    let sent = fixture.broker.payloads();
    assert_eq!(sent, ["a", "b"].map(|channel| (channel.to_owned(), r#"{"n":1}"#.to_owned())));
    assert_eq!(code(&fixture.ok("/api/broadcast", json!({"channels": [], "data": 1})).await), 107);
    assert_eq!(code(&fixture.ok("/api/broadcast", json!({"channels": ["a"]})).await), 107);
}

#[tokio::test]
async fn broadcast_waits_for_its_channels_together() {
    let fixture = fixture();
    fixture.broker.wait_for.store(50, SeqCst);
    let channels: Vec<_> = (0..50).map(|n| format!("c{n}")).collect();
    let asking = fixture.ok("/api/broadcast", json!({"channels": channels, "data": 1}));
    let answer = tokio::time::timeout(Duration::from_secs(10), asking).await.expect("all are under way at once");
    assert_eq!(answer["result"]["responses"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn info_and_channels_have_the_incumbents_shapes() {
    let fixture = fixture();
    let answer = fixture.ok("/api/info", json!({})).await;
    let node = &answer["result"]["nodes"][0];
    assert_eq!((&node["uid"], &node["num_clients"], &node["uptime"]), (&json!("u-1"), &json!(3), &json!(0)));
    // An empty body counts as an empty object.
    assert_eq!(fixture.post("/api/info", "").await.1, answer);
    let answer = fixture.ok("/api/channels", json!({"pattern": "news:*"})).await;
    let channels = json!({"news:a": {"num_clients": 2}, "news:b": {"num_clients": 1}});
    assert_eq!(answer, json!({"result": {"channels": channels}}));
    assert_eq!(fixture.ok("/api/channels", json!({})).await["result"]["channels"].as_object().unwrap().len(), 3);
    assert_eq!(code(&fixture.ok("/api/channels", json!({"pattern": "\\"})).await), 107);
}

#[tokio::test]
async fn a_batch_answers_each_command_without_a_wrapper() {
    let fixture = fixture();
    let commands = json!([
        {"publish": {"channel": "c", "data": 1}},
        {"broadcast": {"channels": ["d", ""], "data": 2}},
        {"publish": {"channel": "", "data": 1}},
        {"rpc": {"method": "m"}},
        {"nonsense": {}},
        {"batch": {"commands": []}},
        {"publish": {"channel": 5}},
        {},
        {"info": {}},
    ]);
    for parallel in [false, true] {
        let answer = fixture.ok("/api/batch", json!({"commands": commands, "parallel": parallel})).await;
        assert_eq!(answer.as_object().unwrap().len(), 1);
        let replies = answer["replies"].as_array().unwrap();
        assert_eq!(replies[0], json!({"publish": {}}));
        assert_eq!(replies[1]["broadcast"]["responses"][0], json!({"result": {}}));
        assert_eq!(replies[2..8].iter().map(code).collect::<Vec<_>>(), [107, 108, 104, 107, 107, 107]);
        assert_eq!(replies[8]["info"]["nodes"][0]["uid"], "u-1");
    }
}

#[tokio::test]
async fn a_parallel_batch_runs_at_once_and_a_plain_one_in_order() {
    let fixture = fixture();
    fixture.broker.wait_for.store(20, SeqCst);
    let commands: Vec<_> = (0..20).map(|n| json!({"publish": {"channel": "c", "data": n}})).collect();
    let asking = fixture.ok("/api/batch", json!({"commands": commands, "parallel": true}));
    let answer = tokio::time::timeout(Duration::from_secs(10), asking).await.expect("all are under way at once");
    assert_eq!(answer["replies"].as_array().unwrap().len(), 20);
    fixture.broker.wait_for.store(0, SeqCst);
    fixture.broker.published.lock().unwrap().clear();
    fixture.ok("/api/batch", json!({"commands": commands})).await;
    let sent: Vec<_> = fixture.broker.payloads().into_iter().map(|(_, data)| data).collect();
    assert_eq!(sent, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn lines_of_method_and_params_are_answered_line_by_line() {
    let fixture = fixture();
    let body = concat!(
        r#"{"method":"publish","params":{"channel":"c","data":1}}"#,
        "\n",
        r#"{"method":"presence","params":{"channel":"c"}}"#,
        "\n\n",
        r#"{"method":"channels"}"#,
        "\n"
    );
    let (status, text) = fixture.text("/api", body).await;
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({"result": {}}));
    assert_eq!(code(&lines[1]), 108);
    assert_eq!(lines[2]["result"]["channels"]["chat"], json!({"num_clients": 5}));
    // One line that is no JSON: nothing is done.
    let half = format!("{body}{{\"method\"");
    assert_eq!(fixture.text("/api", half).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(fixture.text("/api", "").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(fixture.broker.payloads().len(), 1);
}

#[tokio::test]
async fn callers_without_a_key_get_401_before_their_body_is_read() {
    let fixture = fixture();
    for path in ["/api", "/api/publish", "/api/nonsense"] {
        let request = Request::post(path).header("X-API-Key", "wrong").body(Body::from("not json")).unwrap();
        assert_eq!(fixture.send(request).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(fixture.api.stats.rejected(Rejection::Unauthorized), 3);
    let request = Request::post("/api/info?api_key=key").body(Body::empty()).unwrap();
    assert_eq!(fixture.send(request).await.0, StatusCode::OK);
    let open = fixture_with(|api| api.auth = Auth::Insecure);
    let request = Request::post("/api/info").body(Body::empty()).unwrap();
    assert_eq!(open.send(request).await.0, StatusCode::OK);
    let closed = fixture_with(|api| api.auth = Auth::keys([]));
    let request = Request::post("/api/info").header("X-API-Key", "").body(Body::empty()).unwrap();
    assert_eq!(closed.send(request).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn malformed_bodies_get_400_with_a_text_that_says_where() {
    let fixture = fixture();
    let bodies: [&[u8]; 6] =
        [b"{", b"[]", b"{\"channel\":5}", b"{\"data\":1}{\"data\":2}", b"\xff", b"{\"channel\":\"c\",\"data\":{]}"];
    for body in bodies {
        let (status, answer) = fixture.post("/api/publish", body).await;
        assert_eq!((status, code(&answer)), (StatusCode::BAD_REQUEST, 107), "{answer}");
    }
    let (_, answer) = fixture.post("/api/publish", "{\"channel\":5}").await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("column"), "{answer}");
    // Deep nesting ends in an error, not in a full stack.
    let deep = format!("{{\"channel\":\"c\",\"data\":{}", "[".repeat(1_000_000));
    assert_eq!(fixture.post("/api/publish", deep).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_beyond_the_limit_gets_413_and_one_that_stalls_408() {
    let fixture = fixture_with(|api| {
        api.settings.max_body = 100;
        api.settings.body_timeout = Duration::from_millis(20);
    });
    assert_eq!(fixture.post("/api/publish", "a".repeat(101)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(fixture.post("/api", "a".repeat(101)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let stalled = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(fixture.post("/api/publish", stalled).await.0, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(fixture.api.stats.rejected(Rejection::TooLarge), 2);
    assert_eq!(fixture.api.stats.rejected(Rejection::BodyNotReceived), 1);
}

#[tokio::test]
async fn who_is_in_a_channel_is_told_up_to_a_bound() {
    let fixture = fixture();
    let client = |id: &str| json!({"client": id, "user": "u"});
    let answer = fixture.ok("/api/presence", json!({"channel": "room"})).await;
    assert_eq!(answer, json!({"result": {"presence": {"c0": client("c0"), "c1": client("c1")}}}));
    let answer = fixture.ok("/api/presence_stats", json!({"channel": "room"})).await;
    assert_eq!(answer, json!({"result": {"num_clients": 2, "num_users": 1}}));
    for method in ["presence", "presence_stats"] {
        let answer = fixture.ok(&format!("/api/{method}"), json!({"channel": "c"})).await;
        assert_eq!(code(&answer), 108, "{method} of a channel that keeps none");
    }
    let narrow = fixture_with(|api| api.settings.presence_limit = 1);
    let refused = narrow.ok("/api/presence", json!({"channel": "room"})).await;
    assert_eq!(code(&refused), 106);
    assert!(refused["error"]["message"].as_str().unwrap().starts_with("2 clients are in the channel; at most 1"));
}

#[tokio::test]
async fn methods_that_are_not_there_say_so() {
    let fixture = fixture();
    for method in ["subscribe", "disconnect", "rpc", "map_publish", "send_push_notification"] {
        let (status, answer) = fixture.post(&format!("/api/{method}"), "{}").await;
        assert_eq!((status, code(&answer)), (StatusCode::OK, 108), "{method}");
    }
    let (status, answer) = fixture.post("/api/nonsense", "{}").await;
    assert_eq!((status, code(&answer)), (StatusCode::NOT_FOUND, 104));
    let get = Request::get("/api/publish").header("X-API-Key", "key").body(Body::empty()).unwrap();
    assert_eq!(fixture.send(get).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(fixture.api.stats.rejected(Rejection::UnknownMethod), 6);
}

#[tokio::test]
async fn errors_become_statuses_for_those_who_ask() {
    let fixture = fixture();
    let statuses = [("c", 200), ("", 400), ("unknown:c", 404), ("away", 500)];
    for (channel, expected) in statuses {
        let body = json!({"channel": channel, "data": 1}).to_string();
        let request = Request::post("/api/publish").header("X-API-Key", "key");
        let request = request.header("X-Centrifugo-Error-Mode", "transport").body(Body::from(body)).unwrap();
        assert_eq!(fixture.send(request).await.0.as_u16(), expected);
    }
    let always = fixture_with(|api| api.settings.transport_errors = true);
    assert_eq!(always.post("/api/rpc", "{}").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_prefix_can_be_moved_also_to_the_root() {
    for (prefix, info) in [("/v1/push/", "/v1/push/info"), ("/", "/info"), ("", "/info")] {
        let fixture = fixture_with(|api| api.settings.prefix = prefix.to_owned());
        assert_eq!(fixture.text(info, "{}").await.0, StatusCode::OK, "{prefix}");
        let lines = if info == "/info" { "/" } else { "/v1/push" };
        assert_eq!(fixture.text(lines, r#"{"method":"info"}"#).await.0, StatusCode::OK, "{prefix}");
    }
}

#[tokio::test]
async fn a_backend_on_a_socket_publishes_twice_on_one_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fixture = fixture();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
    let settings = crate::http::HttpSettings::default();
    let body = r#"{"channel":"c","data":[1]}"#;
    let head = format!("POST /api/publish HTTP/1.1\r\nhost: a\r\nx-api-key: key\r\ncontent-length: {}\r\n", body.len());
    let (already_read, rest) = head.split_at(30);
    let router = fixture.router.clone();
    let read = Bytes::copy_from_slice(already_read.as_bytes());
    tokio::spawn(crate::http::serve_connection(stream, read, router, settings, stopped, permit));
    client.write_all(format!("{rest}\r\n{body}").as_bytes()).await.unwrap();
    client.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await.unwrap();
    let mut answers = String::new();
    let reading = client.read_to_string(&mut answers);
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap().unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert_eq!(answers.matches(r#"{"result":{}}"#).count(), 2, "{answers}");
    assert_eq!(fixture.broker.payloads(), vec![("c".to_owned(), "[1]".to_owned()); 2]);
}

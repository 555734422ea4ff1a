//! The wires and publishers of other servers, against the real ones: every count is exact, every refusal says what helps.
//!
//! They need nginx with Nchan, nats-server and mosquitto, so they are marked as long; `./test --long` installs those.
//! The servers are configured as `bench/compare` configures them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's own helpers may fail the test")]

mod common;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::text;

const NGINX: &str = include_str!("../../bench/peers/nginx.conf");
const NATS: &str = include_str!("../../bench/peers/nats.conf");
const MOSQUITTO: &str = include_str!("../../bench/peers/mosquitto.conf");

/// A server that ends with the test.
struct Server {
    process: Child,
    /// Where sessions connect to.
    port: u16,
    /// Where messages are published.
    publish: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not SIGKILL: nginx has to end its workers.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a server with this configuration in a directory of its own, and waits until it listens.
fn start(name: &str, program: &str, configuration: &str, port: u16, publish: String) -> Server {
    let directory = directory(name);
    let file = directory.join("configuration");
    std::fs::write(&file, configuration.replace("@DIRECTORY@", directory.to_str().unwrap())).unwrap();
    let process = Command::new(program)
        .arg("-c")
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; ./test --long installs it"));
    let server = Server { process, port, publish };
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "{program} does not come up");
        std::thread::yield_now();
    }
    server
}

fn directory(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn nchan(name: &str) -> Server {
    let port = free_port();
    let configuration = NGINX.replace("@PORT@", &port.to_string());
    start(name, "nginx", &configuration, port, format!("http://127.0.0.1:{port}/pub"))
}

/// `more` is appended to the configuration; `login` goes into the URL.
fn nats(name: &str, more: &str, login: &str) -> Server {
    let (port, websocket) = (free_port(), free_port());
    let configuration = NATS.replace("@PORT@", &port.to_string()).replace("@WEBSOCKET@", &websocket.to_string()) + more;
    start(name, "nats-server", &configuration, websocket, format!("nats://{login}127.0.0.1:{port}"))
}

/// As with [`nats`].
fn mosquitto(name: &str, more: &str, login: &str) -> Server {
    let port = free_port();
    let configuration = MOSQUITTO.replace("@PORT@", &port.to_string()) + more;
    start(name, "mosquitto", &configuration, port, format!("mqtt://{login}127.0.0.1:{port}"))
}

/// Runs the program to its end against a server and gives its JSON as well, if it wrote any.
fn run(name: &str, wire: &str, server: &Server, arguments: &[&str]) -> (Output, serde_json::Value) {
    let address = format!("127.0.0.1:{}", server.port);
    let more = ["--wire", wire, "--server", &address, "--publish", wire, "--publish-url", &server.publish];
    common::run(name, &[&["run"], arguments, &more].concat())
}

/// A burst to everybody, then a channel for each session: nothing is lost, doubled or out of order.
fn everything_arrives(name: &str, wire: &str, server: &Server) {
    for (arguments, deliveries) in [
        (&["broadcast", "--sessions", "200", "--threads", "2", "--burst", "300"][..], 200 * 300),
        (&["unicast", "--sessions", "50", "--rate", "2000", "--seconds", "1"], 2000),
    ] {
        let (output, json) = run(name, wire, server, arguments);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        let figures = &json["figures"];
        assert_eq!(figures["delivered"], f64::from(deliveries), "{arguments:?}");
        for fault in ["lost", "out_of_order", "doubled", "misrouted", "strays"] {
            assert_eq!(figures[fault], 0.0, "{arguments:?} {fault}");
        }
    }
}

/// The run ends with status 2, and the message holds all of these.
fn refused(name: &str, wire: &str, server: &Server, more: &[&str], words: &[&str]) {
    let arguments = [&["broadcast", "--sessions", "5", "--burst", "2", "--grace", "1"], more].concat();
    let (output, _) = run(name, wire, server, &arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
#[ignore = "long: needs nginx with Nchan"]
fn everything_that_is_published_to_nchan_arrives() {
    everything_arrives("nchan", "nchan", &nchan("nchan"));
}

#[test]
#[ignore = "long: needs nats-server"]
fn everything_that_is_published_to_nats_arrives() {
    everything_arrives("nats", "nats", &nats("nats", "", ""));
}

#[test]
#[ignore = "long: needs mosquitto"]
fn everything_that_is_published_to_mosquitto_arrives() {
    everything_arrives("mosquitto", "mqtt", &mosquitto("mosquitto", "", ""));
}

#[test]
#[ignore = "long: needs nats-server"]
fn messages_beyond_a_frame_and_a_read_arrive_through_nats() {
    let server = nats("nats-large", "", "");
    let arguments = ["broadcast", "--sessions", "20", "--payload", "500000", "--burst", "10"];
    let (output, json) = run("nats-large", "nats", &server, &arguments);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(json["figures"]["delivered"], 200.0);
}

#[test]
#[ignore = "long: needs nginx with Nchan"]
fn a_path_without_subscribers_and_one_without_publishers_are_named() {
    let mut server = nchan("nchan-paths");
    refused("nchan-paths", "nchan", &server, &["--path", "/nothing"], &["HTTP 404", "--path"]);
    server.publish = server.publish.replace("/pub", "/nothing");
    refused("nchan-paths", "nchan", &server, &[], &["--publish-url", "nchan_publisher"]);
}

#[test]
#[ignore = "long: needs nats-server"]
fn nats_refusals_say_what_would_help() {
    let login = "authorization { user: me, password: secret }\n";
    let server = nats("nats-login", login, "");
    refused("nats-login", "nats", &server, &[], &["5 x the server complains: Authorization Violation", "anonymous"]);
    let full = nats("nats-full", "max_connections: 3\n", "");
    refused("nats-full", "nats", &full, &[], &["maximum connections exceeded", "max_connections"]);
}

/// Anybody may subscribe, and only `me` may publish.
const NATS_USERS: &str = r#"
accounts { A { users: [
  { user: me, password: secret }
  { user: anybody, password: x, permissions: { publish: "nothing" } }
] } }
no_auth_user: anybody
"#;

#[test]
#[ignore = "long: needs nats-server"]
fn a_login_in_the_url_lets_a_publisher_into_nats() {
    everything_arrives("nats-user", "nats", &nats("nats-user", NATS_USERS, "me:secret@"));
    let stranger = nats("nats-stranger", NATS_USERS, "me:wrong@");
    refused("nats-stranger", "nats", &stranger, &[], &["Authorization Violation", "--publish-url"]);
    let nobody = nats("nats-nobody", NATS_USERS, "");
    refused("nats-nobody", "nats", &nobody, &[], &["Permissions Violation for Publish"]);
}

#[test]
#[ignore = "long: needs mosquitto"]
fn a_login_in_the_url_lets_a_publisher_into_mosquitto() {
    let file = directory("mosquitto-user").join("passwords");
    let status = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args(["me", "secret"]).status();
    assert!(status.expect("mosquitto_passwd is installed").success());
    // Mosquitto gives root away before it reads the file.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, permissions).unwrap();
    let more = format!("password_file {}\n", file.display());
    everything_arrives("mosquitto-user", "mqtt", &mosquitto("mosquitto-user", &more, "me:secret@"));
    let stranger = mosquitto("mosquitto-stranger", &more, "me:wrong@");
    refused("mosquitto-stranger", "mqtt", &stranger, &[], &["refused the publisher with 5", "--publish-url"]);
}

#[test]
#[ignore = "long: needs mosquitto"]
fn a_mosquitto_that_wants_logins_is_named() {
    let port = free_port();
    let configuration =
        MOSQUITTO.replace("@PORT@", &port.to_string()).replace("allow_anonymous true", "allow_anonymous false");
    let publish = format!("mqtt://127.0.0.1:{port}");
    let server = start("mosquitto-closed", "mosquitto", &configuration, port, publish);
    refused("mosquitto-closed", "mqtt", &server, &[], &["connect refused with 5 (not authorized)", "anonymous"]);
}

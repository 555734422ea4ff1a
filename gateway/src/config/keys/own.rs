//! The keys that have an effect.

use super::Row;
use super::Status::{Differs, Ours, Same};
use crate::config::value::DAY;
use crate::config::value::Kind::{
    Address, Choice, Duration, Flag, NamespaceName, Number, Path, Port, RedisAddresses, RedisNodes, Regex, Secret,
    Share, Size, Text, Texts,
};

/// Largest buffer or message that a setting may ask for: 1 GiB.
const GIB: u64 = 1 << 30;
/// The longest that history is kept, in ms: ten years.
const HISTORY_LONGEST: u64 = 3650 * DAY;
/// Largest count that a setting takes.
const MANY: u64 = u32::MAX as u64;

/// The keys by group, in the order in which they are shown. The empty group is the root.
pub(super) const GROUPS: &[(&str, &[Row])] = &[
    ("", ROOT),
    ("http_server", HTTP_SERVER),
    ("tcp_server", TCP_SERVER),
    ("log", LOG),
    ("engine", ENGINE),
    ("engine.redis", REDIS),
    ("embedded", EMBEDDED),
    ("redis_publish", REDIS_PUBLISH),
    ("client", CLIENT),
    ("channel", CHANNEL),
    ("channel.without_namespace", CHANNEL_OPTIONS),
    ("channel.namespaces[]", NAMESPACE),
    ("channel.namespaces[]", CHANNEL_OPTIONS),
    ("websocket", WEBSOCKET),
    ("http_api", HTTP_API),
    ("health", HEALTH),
    ("prometheus", PROMETHEUS),
    ("demo", DEMO),
    ("memory", MEMORY),
    ("shutdown", SHUTDOWN),
    ("node", NODE),
];

const ROOT: &[Row] =
    &[("shards", Number(0, 1024), Ours, "Number of shards, the threads that own sessions; 0 is one per core.")];

const HTTP_SERVER: &[Row] = &[
    ("address", Address, Same, "IP address of the clients' HTTP listener; empty is all IPv4 interfaces."),
    ("port", Port, Same, "Port of the clients' HTTP listener: WebSocket, server API, demo page."),
    (
        "internal_address",
        Address,
        Differs("loopback unless set, also when empty; write 0.0.0.0 for all interfaces"),
        "IP address of the operators' listener: metrics and health.",
    ),
    (
        "internal_port",
        Port,
        Differs("9000: the operators' endpoints always have their own port"),
        "Port of the operators' listener.",
    ),
];

const TCP_SERVER: &[Row] = &[
    ("disabled", Flag, Ours, "Turns the raw TCP listener off."),
    ("address", Address, Ours, "IP address of the raw TCP listener; empty is all IPv4 interfaces."),
    ("port", Port, Ours, "Port of the raw TCP listener: varint-delimited Protobuf from the first byte."),
];

const LOG: &[Row] = &[
    (
        "level",
        Choice(&["trace", "debug", "info", "warn", "error", "none"]),
        Same,
        "The least important level that is logged: trace, debug, info, warn, error or none.",
    ),
    ("file", Text, Same, "File that logs are appended to; empty is standard output."),
];

const ENGINE: &[Row] = &[(
    "type",
    Choice(&["memory", "redis"]),
    Same,
    "What carries messages: memory (embedded, this node alone) or redis (any number of nodes).",
)];

const REDIS: &[Row] = &[
    (
        "address",
        RedisAddresses,
        Differs("exactly one; spreading over several is not built yet"),
        "Address of Redis or Valkey: redis://[user[:password]@]host[:port][/db].",
    ),
    (
        "cluster_address",
        RedisNodes,
        Differs("one cluster; all addresses are nodes of it"),
        "Addresses of some nodes of a Redis Cluster, instead of address. Every node is logged in to as the first one is.",
    ),
    (
        "cluster_max_masters",
        Number(1, 255),
        Ours,
        "Largest number of the cluster's masters; each takes a connection for each shard and one more. Channels of masters \
         beyond it are not served, and the broker is degraded.",
    ),
    (
        "sharded_pub_sub",
        Flag,
        Ours,
        "Whether channels of a cluster use SSUBSCRIBE and SPUBLISH (Redis 7, Valkey), each on the master of its slot; false: \
         SUBSCRIBE and PUBLISH, which every node of the cluster gets. Backends have to do the same.",
    ),
    (
        "sentinel_address",
        RedisNodes,
        Differs("Sentinels of one master"),
        "Addresses of Redis Sentinels, instead of address: [redis://[user[:password]@]]host[:port]; the port is 26379 unless given.",
    ),
    ("sentinel_master_name", Text, Same, "Name of the master that the Sentinels watch."),
    ("sentinel_user", Text, Same, "User for the Sentinels; counts before one in their addresses."),
    ("sentinel_password", Secret, Same, "Password for the Sentinels; counts before one in their addresses."),
    (
        "topology_interval",
        Duration(100, DAY),
        Ours,
        "How often the cluster or the Sentinels are asked for the servers though nothing has happened, less up to half at random. \
         After a lost connection or a redirection they are asked at once.",
    ),
    ("prefix", Text, Differs("tidegate instead of centrifugo"), "What the gateway's own keys in Redis begin with."),
    ("db", Number(0, 255), Same, "Number of the database, where the address names none."),
    ("user", Text, Same, "User, where the address names none."),
    ("password", Secret, Same, "Password, where the address names none."),
    ("connect_timeout", Duration(1, DAY), Same, "How long connecting may take."),
    ("io_timeout", Duration(1, DAY), Same, "How long an answer may take."),
    (
        "presence_ttl",
        Duration(1000, DAY),
        Differs("a node that stops leaves at once; this is for one that dies"),
        "How long a node's clients count as present after it was last heard of. At least twice client.presence_update_interval.",
    ),
];

const EMBEDDED: &[Row] = &[
    (
        "path",
        Text,
        Ours,
        "Directory of the log that histories come back from after a restart (engine.type memory); empty keeps them in \
         memory alone. No two nodes may share one.",
    ),
    (
        "fsync",
        Choice(&["always", "interval", "never"]),
        Ours,
        "When what was written to the log is made durable: before each publish is answered and delivered, every \
         embedded.fsync_interval, or when the system thinks fit.",
    ),
    (
        "fsync_interval",
        Duration(1, DAY),
        Ours,
        "What a crash of the machine may cost where embedded.fsync is interval.",
    ),
    ("segment_size", Size(64 << 10, GIB), Ours, "Size from which on a file of the log is followed by the next one."),
    (
        "compaction_ratio",
        Number(2, 1000),
        Ours,
        "The log is rewritten when it has more than so many times the bytes of what it keeps, and more than a segment.",
    ),
    (
        "max_pending",
        Size(64 << 10, GIB),
        Ours,
        "Bytes that may wait to be written to the log; publishes with history are refused beyond.",
    ),
    (
        "history_memory_limit",
        Size(1 << 20, 1 << 50),
        Ours,
        "Memory that the embedded broker's histories take at most; beyond, what would expire next goes at once.",
    ),
];

const REDIS_PUBLISH: &[Row] = &[
    ("prefix", Text, Ours, "A backend publishes to this prefix and the channel: PUBLISH push:news hello."),
    (
        "max_payload",
        Size(1, 512 << 20),
        Ours,
        "Longest payload, of the embedded broker too; a longer one from Redis is dropped and counted, a longer publish gets error 107.",
    ),
];

const CLIENT: &[Row] = &[
    (
        "allowed_origins",
        Texts,
        Same,
        "Origins that browsers may come from, as patterns with *; empty lets only requests without Origin in.",
    ),
    ("insecure", Flag, Same, "Lets everybody connect, subscribe and publish. Never for the internet."),
    ("allow_anonymous_connect_without_token", Flag, Same, "Lets clients without a token connect, with no user id."),
    (
        "ping_interval",
        Duration(1000, DAY),
        Differs("pings can't be turned off: no -1"),
        "Time between two pings to a client; the first one comes at a random moment of its second half.",
    ),
    (
        "pong_timeout",
        Duration(100, DAY),
        Differs("the check can't be turned off: no -1"),
        "A client whose pong does not come within it is closed with 3012. Less than ping_interval.",
    ),
    ("stale_close_delay", Duration(100, DAY), Same, "Without a successful connect within it: closed with 3502."),
    ("channel_limit", Number(1, 1_000_000), Same, "Subscriptions of one session."),
    ("queue_max_size", Size(1024, GIB), Same, "Bytes that may wait for one session; beyond them: closed with 3008."),
    (
        "connection_limit",
        Number(0, MANY),
        Differs("500000 instead of none"),
        "Client connections of this node; 0 is as many as the limit of open files allows.",
    ),
    ("connection_rate_limit", Number(0, MANY), Same, "New connections a second; 0 is no limit."),
    ("connect_include_server_time", Flag, Same, "The connect reply carries the node's time."),
    (
        "idle_timeout",
        Duration(0, DAY),
        Ours,
        "A connection from which nothing at all comes for so long is closed; 0s is never. Raised to twice a longer \
         ping_interval unless set.",
    ),
    ("lag_threshold", Duration(1, DAY), Ours, "A session whose pong takes longer is counted as lagging."),
    ("handshake_timeout", Duration(100, DAY), Ours, "The HTTP upgrade, or the first bytes on raw TCP, come within it."),
    ("handshake_limit", Number(1, MANY), Ours, "Handshakes under way at once; beyond them: 503."),
    ("address_connection_limit", Number(0, MANY), Ours, "Connections from one IP address; 0 is no limit."),
    (
        "channel_position_check_delay",
        Duration(0, DAY),
        Differs("one check for each channel and shard, not for each subscription; 0s is never"),
        "Time between two comparisons of a channel's position with the broker's, which find what no message revealed.",
    ),
    (
        "channel_position_max_time_lag",
        Duration(0, DAY),
        Differs("looked at with Redis alone: the embedded broker's publications do not travel"),
        "A publication that is older when it comes from Redis counts as a gap of its channel's positions; 0s: its age is \
         not looked at. The clocks of Redis and the node must agree as closely.",
    ),
    (
        "presence_update_interval",
        Duration(100, DAY),
        Differs("once for each channel and node, not for each client"),
        "How often a node tells Redis of a channel with presence that it lives. At most half of engine.redis.presence_ttl.",
    ),
    (
        "presence_max_clients",
        Number(0, 1_000_000),
        Ours,
        "Clients in one answer to presence; of a channel with more, error 106. presence_stats has no bound.",
    ),
    ("history_max_publication_limit", Number(1, 100_000), Same, "Publications in one answer to a history command."),
    (
        "recovery_max_publication_limit",
        Number(1, 100_000),
        Same,
        "Publications in one recovery; a client that missed more is told that it cannot recover.",
    ),
];

const CHANNEL: &[Row] = &[
    ("max_length", Number(1, 65535), Same, "Longest channel name, in bytes; a longer one gets error 107."),
    ("private_prefix", Text, Same, "A channel whose name begins with it takes a token to subscribe."),
    ("namespace_boundary", Text, Same, "What stands between a namespace and the rest of a channel's name."),
    ("user_boundary", Text, Same, "What stands before the users in the name of a user-limited channel."),
    ("user_separator", Text, Same, "What stands between two users there."),
    (
        "history_meta_ttl",
        Duration(1000, HISTORY_LONGEST),
        Same,
        "How long a channel's position is remembered after its last publication or reader.",
    ),
];

const NAMESPACE: &[Row] = &[(
    "name",
    NamespaceName,
    Same,
    "What the names of the namespace's channels begin with, before the boundary. Each name once.",
)];

const CHANNEL_OPTIONS: &[Row] = &[
    ("allow_subscribe_for_client", Flag, Same, "Every client with a user id may subscribe."),
    ("allow_subscribe_for_anonymous", Flag, Same, "Together with it: anonymous clients as well."),
    ("allow_publish_for_client", Flag, Same, "Every client with a user id may publish."),
    ("allow_publish_for_subscriber", Flag, Same, "A client may publish while it is subscribed."),
    ("allow_publish_for_anonymous", Flag, Same, "Together with one of the two: anonymous clients as well."),
    (
        "channel_regex",
        Regex,
        Differs("without Unicode classes such as \\p{L}"),
        "Only channels whose name behind the namespace matches are accepted; empty is every ASCII name.",
    ),
    (
        "publication_data_format",
        Choice(&["", "json", "binary"]),
        Differs("json_object is not built yet"),
        "What published data must be: json, binary (anything), or empty for anything but nothing.",
    ),
    ("allow_tags_filter", Flag, Same, "Clients may ask for publications with certain tags only; otherwise: error 107."),
    (
        "queue_policy",
        Choice(&["", "disconnect", "drop_oldest", "latest"]),
        Ours,
        "What a session misses that does not read fast enough: nothing until it is closed with 3008 (disconnect, or empty), the \
         oldest that wait (drop_oldest), or all but the newest of each channel (latest). The last two not with recovery or positioning.",
    ),
    ("presence", Flag, Same, "Keeps who is subscribed: presence and presence_stats answer."),
    ("join_leave", Flag, Same, "Tells who comes and goes to subscribers who ask for it and may ask for presence."),
    ("force_push_join_leave", Flag, Same, "Tells it to all subscribers. Needs join_leave."),
    ("allow_presence_for_client", Flag, Same, "Every client with a user id may ask for presence."),
    ("allow_presence_for_subscriber", Flag, Same, "A client may ask for presence while it is subscribed."),
    ("allow_presence_for_anonymous", Flag, Same, "Together with one of the two: anonymous clients as well."),
    ("history_size", Number(0, 1_000_000), Same, "Publications kept for each channel; 0 is none."),
    ("history_ttl", Duration(0, HISTORY_LONGEST), Same, "How long they are kept after the last one; 0s is no history."),
    (
        "history_meta_ttl",
        Duration(0, HISTORY_LONGEST),
        Same,
        "How long the position is remembered; 0s is channel.history_meta_ttl.",
    ),
    ("force_positioning", Flag, Same, "Watches every subscription's position: what it misses, it is told."),
    ("allow_positioning", Flag, Same, "Watches it where the client asks for it."),
    ("force_recovery", Flag, Same, "Every subscription can recover what it missed. Needs a history."),
    ("allow_recovery", Flag, Same, "It can where the client asks for it. Needs a history."),
    (
        "force_recovery_mode",
        Choice(&["", "stream", "cache"]),
        Same,
        "What is recovered: stream (or empty) is all that was missed, cache the newest publication.",
    ),
    (
        "auto_cache_recover",
        Flag,
        Same,
        "Every subscription gets the newest publication, asked or not. Needs force_recovery and force_recovery_mode = cache.",
    ),
    (
        "allowed_delta_types",
        Texts,
        Same,
        "Kinds of deltas that clients may ask for: [\"fossil\"], or none. Needs a history; such subscriptions have a position.",
    ),
    ("delta_publish", Flag, Same, "Publications may be sent as deltas, whether their publisher says so or not."),
    ("allow_history_for_client", Flag, Same, "Every client with a user id may ask for history."),
    ("allow_history_for_subscriber", Flag, Same, "A client may ask for history while it is subscribed."),
    ("allow_history_for_anonymous", Flag, Same, "Together with one of the two: anonymous clients as well."),
];

const WEBSOCKET: &[Row] = &[
    ("disabled", Flag, Same, "Turns the WebSocket endpoint off."),
    ("handler_prefix", Path, Same, "Path of the WebSocket endpoint."),
    ("message_size_limit", Size(64, GIB), Same, "Longest message from a client; a longer one: closed with 1009."),
    (
        "flush_interval",
        Duration(0, 10_000),
        Ours,
        "How long publications may wait so that one write takes several; 0s writes at the end of each turn. Replies do not wait.",
    ),
];

const HTTP_API: &[Row] = &[
    ("disabled", Flag, Same, "Turns the server API over HTTP off."),
    ("handler_prefix", Path, Same, "Path before the method: /api/publish."),
    ("key", Secret, Same, "The key that requests carry in X-API-Key; with an empty one every request gets 401."),
    ("insecure", Flag, Same, "Asks for no key. Never for the internet."),
    (
        "external",
        Flag,
        Differs("true: the API is on the clients' port, although operators always have their own"),
        "Serves the API on the clients' port; false: only on the operators'.",
    ),
];

const HEALTH: &[Row] = &[
    ("enabled", Flag, Differs("on"), "Serves the health endpoints on the operators' port."),
    ("handler_prefix", Path, Differs("/live, /ready and /startup stand below it"), "Path of the health endpoints."),
];

const PROMETHEUS: &[Row] = &[
    ("enabled", Flag, Differs("on"), "Serves the metrics page on the operators' port."),
    ("handler_prefix", Path, Same, "Path of the metrics page."),
];

const DEMO: &[Row] = &[("enabled", Flag, Ours, "Serves the demo page at / of the clients' port; --dev turns it on.")];

const MEMORY: &[Row] = &[
    ("limit", Size(0, u64::MAX), Ours, "Memory of the process; 0 is the cgroup's limit, or else the machine's memory."),
    ("refuse_at", Share, Ours, "From this share of the limit on, new connections are refused."),
    ("evict_from", Share, Ours, "From this share on, the sessions that cost most are closed ..."),
    ("evict_to", Share, Ours, "... until this share is reached."),
    (
        "usage_file",
        Text,
        Ours,
        "Read the bytes in use from this file instead of the process: for tests and drills; empty is the process.",
    ),
];

const SHUTDOWN: &[Row] = &[
    (
        "timeout",
        Duration(0, DAY),
        Same,
        "The longest that stopping may take, with the drain. Connections that are left then are cut off.",
    ),
    (
        "drain",
        Duration(0, DAY),
        Ours,
        "Time over which sessions are closed, evenly; the last tenth of shutdown.timeout (2s at most) is left to the \
         last ones to go. No longer than shutdown.timeout, which it follows unless set.",
    ),
];

const NODE: &[Row] =
    &[("name", Text, Same, "Name of the node in the API and in logs; empty is the host's name and the port.")];

//! The incumbent's keys that have no effect here: not yet, or never. Defaults are the incumbent's, as JSON.

use super::LaterRow;

/// Groups with the reason why their keys have no effect yet.
pub(super) const NOT_YET: &[(&str, &str, &[LaterRow])] = &[
    ("http_server.tls", TLS_SERVER_WHY, TLS),
    ("http_server.internal_tls", TLS_SERVER_WHY, TLS),
    ("http_server.tls_autocert", TLS_SERVER_WHY, AUTOCERT),
    ("http_server", TLS_SERVER_WHY, &[("tls_external", "false", "TLS only for the clients' endpoints.")]),
    ("http_server", "HTTP/2 is not built yet", &[("h2c_external", "false", "HTTP/2 without TLS for clients.")]),
    ("http_server.http3", "HTTP/3 is not built yet", &[("enabled", "false", "Serves HTTP/3.")]),
    ("tcp_server.tls", TLS_SERVER_WHY, TLS),
    ("engine.redis", "connections have fixed names, and replicas are not read", REDIS_CLIENTS),
    ("engine.redis", PRESENCE_WHY, REDIS_PRESENCE),
    ("engine.redis.tls", "TLS to Redis is not built yet", TLS),
    ("engine.redis.sentinel_tls", "TLS to Redis Sentinel is not built yet", TLS),
    ("broker", "engine.type is the only choice yet: set that", SEPARATE_BROKER),
    ("presence_manager", PRESENCE_WHY, SEPARATE_BROKER),
    ("controller", "nodes share nothing but their engine", SEPARATE_BROKER),
    ("", MAPS_WHY, &[("map_broker", "{}", "What carries map subscriptions.")]),
    ("", MAPS_WHY, &[("shared_poll", "{}", "Settings of shared poll subscriptions.")]),
    ("client", TOKENS_WHY, CLIENT_TOKENS),
    ("client.token", TOKENS_WHY, TOKEN),
    ("client.subscription_token", TOKENS_WHY, &[("enabled", "false", "Subscription tokens have keys of their own.")]),
    ("client.subscription_token", TOKENS_WHY, TOKEN),
    ("client.subscribe_to_user_personal_channel", TOKENS_WHY, PERSONAL_CHANNEL),
    ("client.proxy.connect", PROXY_WHY, PROXY_ENABLED),
    ("client.proxy.refresh", PROXY_WHY, PROXY_ENABLED),
    ("client.proxy.connect", PROXY_WHY, PROXY),
    ("client.proxy.connect.http.tls", PROXY_WHY, TLS),
    ("client.proxy.connect.grpc.tls", PROXY_WHY, TLS),
    ("client.proxy.refresh", PROXY_WHY, PROXY),
    ("client.proxy.refresh.http.tls", PROXY_WHY, TLS),
    ("client.proxy.refresh.grpc.tls", PROXY_WHY, TLS),
    ("client.connect_code_to_unidirectional_disconnect", TRANSPORT_WHY, CODE_TRANSFORMS),
    (
        "channel",
        "set it in channel.without_namespace and in each namespace",
        &[("publication_data_format", "\"\"", "What published data must be, unless a namespace says otherwise.")],
    ),
    ("channel.proxy", MAPS_WHY, PROXY_MAPS),
    ("channel.proxy.subscribe", PROXY_WHY, PROXY),
    ("channel.proxy.subscribe.http.tls", PROXY_WHY, TLS),
    ("channel.proxy.subscribe.grpc.tls", PROXY_WHY, TLS),
    ("channel.proxy.publish", PROXY_WHY, PROXY),
    ("channel.proxy.publish.http.tls", PROXY_WHY, TLS),
    ("channel.proxy.publish.grpc.tls", PROXY_WHY, TLS),
    ("channel.proxy.sub_refresh", PROXY_WHY, PROXY),
    ("channel.proxy.sub_refresh.http.tls", PROXY_WHY, TLS),
    ("channel.proxy.sub_refresh.grpc.tls", PROXY_WHY, TLS),
    ("channel.proxy.subscribe_stream", PROXY_WHY, PROXY),
    ("channel.proxy.subscribe_stream.http.tls", PROXY_WHY, TLS),
    ("channel.proxy.subscribe_stream.grpc.tls", PROXY_WHY, TLS),
    ("channel.without_namespace", PROXY_WHY, OPTIONS_PROXY),
    ("channel.without_namespace", TOKENS_WHY, OPTIONS_USERS),
    ("channel.without_namespace", DELIVERY_WHY, OPTIONS_DELIVERY),
    ("channel.without_namespace", MAPS_WHY, OPTIONS_MAPS),
    ("channel.namespaces[]", PROXY_WHY, OPTIONS_PROXY),
    ("channel.namespaces[]", TOKENS_WHY, OPTIONS_USERS),
    ("channel.namespaces[]", DELIVERY_WHY, OPTIONS_DELIVERY),
    ("channel.namespaces[]", MAPS_WHY, OPTIONS_MAPS),
    ("rpc", RPC_WHY, RPC),
    ("rpc.without_namespace", RPC_WHY, RPC_OPTIONS),
    ("rpc.ping", RPC_WHY, RPC_PING),
    ("rpc.proxy", RPC_WHY, PROXY),
    ("rpc.proxy.http.tls", RPC_WHY, TLS),
    ("rpc.proxy.grpc.tls", RPC_WHY, TLS),
    ("", PROXY_WHY, &[("proxies", "[]", "Proxies with names, for single namespaces.")]),
    ("", "consumers of queues and tables are not built yet", &[("consumers", "[]", "Asynchronous consumers.")]),
    ("http_api", "one key, http_api.key, is all there is yet", &[("keys", "[]", "Keys with names and rights.")]),
    (
        "http_api",
        "errors always come in the body yet",
        &[("error_mode", "\"\"", "How errors are answered: in the body, or as an HTTP status.")],
    ),
    ("grpc_api", "the API over gRPC is not built yet: use the one over HTTP", GRPC_API),
    ("grpc_api.tls", "the API over gRPC is not built yet", TLS),
    ("websocket", "compression is not built yet", WEBSOCKET_COMPRESSION),
    ("sse", TRANSPORT_WHY, HTTP_TRANSPORT_SSE),
    ("http_stream", TRANSPORT_WHY, HTTP_TRANSPORT_STREAM),
    ("webtransport", TRANSPORT_WHY, WEBTRANSPORT),
    ("uni_sse", TRANSPORT_WHY, UNI_SSE),
    ("uni_sse.connect_code_to_http_response", TRANSPORT_WHY, CODE_TRANSFORMS),
    ("uni_http_stream", TRANSPORT_WHY, UNI_HTTP_STREAM),
    ("uni_http_stream.connect_code_to_http_response", TRANSPORT_WHY, CODE_TRANSFORMS),
    ("uni_websocket", TRANSPORT_WHY, UNI_WEBSOCKET),
    ("uni_grpc", TRANSPORT_WHY, UNI_GRPC),
    ("uni_grpc.tls", TRANSPORT_WHY, TLS),
    ("emulation", TRANSPORT_WHY, EMULATION),
    ("init", TRANSPORT_WHY, INIT),
    ("dev", "demo.enabled serves a demo page", ENABLED_ONLY),
    ("admin", "the operators' console is not built yet", ADMIN),
    ("debug", "profiles over HTTP are not built yet", DEBUG),
    ("prometheus", "histograms have fixed buckets", PROMETHEUS),
    ("swagger", "the description of the API is not served yet", SWAGGER),
    ("opentelemetry", "traces are not built yet", OPENTELEMETRY),
    ("graphite", "only Prometheus metrics are built yet", GRAPHITE),
];

const TLS_SERVER_WHY: &str = "TLS in the gateway is not built yet: end it in a proxy in front";
const PRESENCE_WHY: &str = "presence is kept where messages come from, in one way";
const TOKENS_WHY: &str = "users and tokens (JWT) are not built yet";
const PROXY_WHY: &str = "proxying events to a backend is not built yet";
const TRANSPORT_WHY: &str = "only WebSocket and raw TCP are built yet";
const RPC_WHY: &str = "RPC is not built yet: clients get error 108";
const MAPS_WHY: &str = "map and shared poll subscriptions are not built yet";
const DELIVERY_WHY: &str = "rules of delivery by channel are not built yet";

const TLS: &[LaterRow] = &[
    ("enabled", "false", "Turns TLS on."),
    ("cert_pem", "\"\"", "Certificate: a path, the PEM text, or base64 of it."),
    ("key_pem", "\"\"", "Private key, in the same ways."),
    ("server_ca_pem", "\"\"", "Authority that the server's certificate is checked against."),
    ("client_ca_pem", "\"\"", "Authority that clients' certificates are checked against."),
    ("insecure_skip_verify", "false", "Checks no certificate of the other side."),
    ("server_name", "\"\"", "Name that the other side's certificate is checked for."),
];

const AUTOCERT: &[LaterRow] = &[
    ("enabled", "false", "Gets certificates by ACME."),
    ("host_whitelist", "[]", "Host names to get certificates for."),
    ("cache_dir", "\"\"", "Directory that keeps the certificates."),
    ("email", "\"\"", "Address that the authority may write to."),
    ("server_name", "\"\"", "Host name for clients that send none."),
    ("http", "false", "Answers the authority's challenge over HTTP."),
    ("http_addr", "\":80\"", "Where it answers."),
];

const REDIS_CLIENTS: &[LaterRow] = &[
    ("sentinel_client_name", "\"\"", "Name that connections to the Sentinels have."),
    ("client_name", "\"\"", "Name that connections to Redis have."),
    ("replica_client", "{}", "Reads from replicas."),
];

const REDIS_PRESENCE: &[LaterRow] = &[
    ("presence_hash_field_ttl", "false", "Presence expires by field of the hash."),
    ("presence_user_mapping", "false", "Keeps users of a channel apart, for quick statistics."),
];

const SEPARATE_BROKER: &[LaterRow] = &[
    ("enabled", "false", "Chooses this part apart from the engine."),
    ("type", "\"memory\"", "Which kind: memory, redis or nats."),
    ("redis", "{}", "Its connection to Redis."),
    ("nats", "{}", "Its connection to NATS."),
    ("postgres", "{}", "Its connection to PostgreSQL."),
];

const CLIENT_TOKENS: &[LaterRow] = &[
    ("disallow_anonymous_connection_tokens", "false", "Refuses tokens without a user."),
    ("expired_close_delay", "\"25s\"", "Grace for a client to renew an expired connection."),
    ("expired_sub_close_delay", "\"25s\"", "Grace for a client to renew an expired subscription."),
    ("user_connection_limit", "0", "Connections of one user on this node."),
    ("user_id_http_header", "\"\"", "Header of a trusted proxy that names the user."),
    ("insecure_skip_token_signature_verify", "false", "Believes tokens without checking them."),
];

const TOKEN: &[LaterRow] = &[
    ("hmac_secret_key", "\"\"", "Secret of HMAC tokens."),
    ("hmac_previous_secret_key", "\"\"", "The secret before, while it is being changed."),
    ("hmac_previous_secret_key_valid_until", "0", "Until when that one counts, in Unix seconds."),
    ("rsa_public_key", "\"\"", "Public key of RSA tokens."),
    ("ecdsa_public_key", "\"\"", "Public key of ECDSA tokens."),
    ("jwks_public_endpoint", "\"\"", "Address that serves the public keys."),
    ("audience", "\"\"", "Audience that tokens must have."),
    ("audience_regex", "\"\"", "Expression that their audience must match."),
    ("issuer", "\"\"", "Issuer that tokens must have."),
    ("issuer_regex", "\"\"", "Expression that their issuer must match."),
    ("user_id_claim", "\"\"", "Claim that names the user."),
    ("insecure_skip_jwks_endpoint_safety_check", "false", "Lets a token choose a part of the keys' address."),
];

const PERSONAL_CHANNEL: &[LaterRow] = &[
    ("enabled", "false", "Subscribes every user to a channel of their own."),
    ("personal_channel_namespace", "\"\"", "Namespace of that channel."),
    ("single_connection", "false", "A user's new connection ends the one before."),
];

const PROXY_ENABLED: &[LaterRow] = &[("enabled", "false", "Turns this proxy on.")];

const PROXY: &[LaterRow] = &[
    ("endpoint", "\"\"", "Address of the backend: http://, https:// or grpc://."),
    ("timeout", "\"1s\"", "How long an answer may take."),
    ("http_headers", "[]", "Headers of the client's request that are passed on."),
    ("grpc_metadata", "[]", "Metadata that is passed on."),
    ("emulated_headers", "[]", "Headers that clients send in their connect command, passed on."),
    ("binary_encoding", "false", "Sends data as base64."),
    ("include_connection_meta", "false", "Sends the connection's meta data."),
    ("http.static_headers", "{}", "Headers that every request gets."),
    ("http.status_to_code_transforms", "[]", "Turns HTTP statuses into protocol codes."),
    ("grpc.credentials_key", "\"\"", "Name of a credential for every call."),
    ("grpc.credentials_value", "\"\"", "Its value."),
    ("grpc.static_metadata", "{}", "Metadata that every call gets."),
    ("grpc.compression", "false", "Compresses calls."),
];

const CODE_TRANSFORMS: &[LaterRow] =
    &[("enabled", "false", "Turns connect errors into something else."), ("transforms", "[]", "Into what.")];

const OPTIONS_PROXY: &[LaterRow] = &[
    ("subscribe_proxy_enabled", "false", "Asks the backend about subscriptions."),
    ("subscribe_proxy_name", "\"default\"", "Which proxy asks."),
    ("publish_proxy_enabled", "false", "Asks the backend about publications of clients."),
    ("publish_proxy_name", "\"default\"", "Which proxy asks."),
    ("sub_refresh_proxy_enabled", "false", "Asks the backend to renew subscriptions."),
    ("sub_refresh_proxy_name", "\"default\"", "Which proxy asks."),
    ("subscribe_stream_proxy_enabled", "false", "Takes a subscription's publications from a backend's stream."),
    ("subscribe_stream_proxy_name", "\"default\"", "Which proxy does."),
    ("subscribe_stream_proxy_bidirectional", "false", "Gives the client's publications to that stream."),
];

const OPTIONS_USERS: &[LaterRow] =
    &[("allow_user_limited_channels", "false", "Users named behind the user boundary may subscribe.")];

const OPTIONS_MAPS: &[LaterRow] = &[
    ("subscription_type", "\"stream\"", "Kind of the subscriptions: stream, map, shared_poll and others."),
    ("map", "{}", "Settings of map subscriptions."),
    ("shared_poll", "{}", "Settings of shared poll subscriptions."),
    ("map_clients_presence_channel_prefix", "\"\"", "Where the map of present clients is."),
    ("map_users_presence_channel_prefix", "\"\"", "Where the map of present users is."),
];

const PROXY_MAPS: &[LaterRow] = &[
    ("map_publish", "{}", "Asks the backend about changes of maps."),
    ("map_remove", "{}", "Asks the backend about removals from maps."),
    ("shared_poll_refresh", "{}", "Asks the backend for new data."),
];

const OPTIONS_DELIVERY: &[LaterRow] = &[
    ("max_rate", "0", "Messages a second to one session: ours."),
    ("priority", "0", "Which channels go first: ours."),
];

const RPC: &[LaterRow] = &[
    ("namespaces", "[]", "Namespaces of methods."),
    ("namespace_boundary", "\":\"", "What stands between a namespace and the rest of a method."),
];

const RPC_OPTIONS: &[LaterRow] =
    &[("proxy_enabled", "false", "Gives calls to the backend."), ("proxy_name", "\"default\"", "Which proxy does.")];

const RPC_PING: &[LaterRow] =
    &[("enabled", "false", "Answers one method without a backend."), ("method", "\"ping\"", "Which method.")];

const GRPC_API: &[LaterRow] = &[
    ("enabled", "false", "Serves the API over gRPC."),
    ("error_mode", "\"\"", "How errors are answered."),
    ("address", "\"\"", "IP address of the listener."),
    ("port", "10000", "Port of the listener."),
    ("key", "\"\"", "Key that calls carry."),
    ("reflection", "false", "Describes itself to clients."),
    ("max_receive_message_size", "0", "Longest call."),
];

const WEBSOCKET_COMPRESSION: &[LaterRow] = &[
    ("compression", "false", "Compresses messages (permessage-deflate)."),
    ("compression_min_size", "0", "Shortest message that is compressed."),
    ("compression_level", "1", "Effort of compression."),
    ("decompressed_message_size_limit", "0", "Longest message from a client once decompressed."),
];

const HTTP_TRANSPORT_SSE: &[LaterRow] = &[
    ("enabled", "false", "Serves event streams."),
    ("handler_prefix", "\"/connection/sse\"", "Path of the endpoint."),
    ("max_request_body_size", "65536", "Longest request."),
];

const HTTP_TRANSPORT_STREAM: &[LaterRow] = &[
    ("enabled", "false", "Serves HTTP streams."),
    ("handler_prefix", "\"/connection/http_stream\"", "Path of the endpoint."),
    ("max_request_body_size", "65536", "Longest request."),
];

const WEBTRANSPORT: &[LaterRow] = &[
    ("enabled", "false", "Serves WebTransport."),
    ("handler_prefix", "\"/connection/webtransport\"", "Path of the endpoint."),
    ("message_size_limit", "65536", "Longest message from a client."),
];

const UNI_SSE: &[LaterRow] = &[
    ("enabled", "false", "Serves one-way event streams."),
    ("handler_prefix", "\"/connection/uni_sse\"", "Path of the endpoint."),
    ("max_request_body_size", "65536", "Longest request."),
];

const UNI_HTTP_STREAM: &[LaterRow] = &[
    ("enabled", "false", "Serves one-way HTTP streams."),
    ("handler_prefix", "\"/connection/uni_http_stream\"", "Path of the endpoint."),
    ("max_request_body_size", "65536", "Longest request."),
];

const UNI_WEBSOCKET: &[LaterRow] = &[
    ("enabled", "false", "Serves one-way WebSocket."),
    ("handler_prefix", "\"/connection/uni_websocket\"", "Path of the endpoint."),
    ("compression", "false", "Compresses messages."),
    ("compression_min_size", "0", "Shortest message that is compressed."),
    ("compression_level", "1", "Effort of compression."),
    ("write_timeout", "\"1s\"", "How long a write may take."),
    ("message_size_limit", "65536", "Longest message from a client."),
    ("decompressed_message_size_limit", "0", "Longest message from a client once decompressed."),
    ("join_push_messages", "false", "Joins messages into one frame."),
    ("disable_closing_handshake", "false", "Closes without a close frame."),
    ("disable_disconnect_push", "false", "Closes without a disconnect push."),
];

const UNI_GRPC: &[LaterRow] = &[
    ("enabled", "false", "Serves one-way gRPC."),
    ("address", "\"\"", "IP address of the listener."),
    ("port", "11000", "Port of the listener."),
    ("max_receive_message_size", "0", "Longest call."),
];

const EMULATION: &[LaterRow] = &[
    ("handler_prefix", "\"/emulation\"", "Path of the endpoint."),
    ("max_request_body_size", "65536", "Longest request."),
];

const INIT: &[LaterRow] = &[
    ("enabled", "false", "Serves an endpoint that clients ask before they connect."),
    ("handler_prefix", "\"/connection/init\"", "Path of the endpoint."),
];

const ENABLED_ONLY: &[LaterRow] = &[("enabled", "false", "Serves the endpoint.")];

const ADMIN: &[LaterRow] = &[
    ("enabled", "false", "Serves the console."),
    ("handler_prefix", "\"\"", "Path of the console."),
    ("password", "\"\"", "Password of the console."),
    ("secret", "\"\"", "Secret of its sessions."),
    ("insecure", "false", "Asks for no password."),
    ("web_path", "\"\"", "Directory with another console."),
    ("web_proxy_address", "\"\"", "Address of another console."),
    ("external", "false", "Serves it on the clients' port."),
];

const DEBUG: &[LaterRow] =
    &[("enabled", "false", "Serves profiles."), ("handler_prefix", "\"/debug/pprof\"", "Path of the profiles.")];

const PROMETHEUS: &[LaterRow] = &[
    ("native_histograms", "false", "Native histograms."),
    ("recovered_publications_histogram", "false", "A histogram of recovered publications."),
];

const SWAGGER: &[LaterRow] =
    &[("enabled", "false", "Serves a description of the API."), ("handler_prefix", "\"/swagger\"", "Its path.")];

const OPENTELEMETRY: &[LaterRow] = &[
    ("enabled", "false", "Sends traces."),
    ("api", "false", "Traces of the API."),
    ("consuming", "false", "Traces of consumers."),
    ("google_cloud_adc_auth", "false", "Signs in to Google Cloud."),
];

const GRAPHITE: &[LaterRow] = &[
    ("enabled", "false", "Sends metrics to Graphite."),
    ("host", "\"localhost\"", "Its host."),
    ("port", "2003", "Its port."),
    ("prefix", "\"centrifugo\"", "What the names of the metrics begin with."),
    ("interval", "\"10s\"", "Time between two reports."),
    ("tags", "false", "Sends tags."),
];

/// Keys that never have an effect: path, the incumbent's default, why.
pub(super) const MEANINGLESS: &[(&str, &str, &str)] = &[
    ("client.concurrency", "0", "commands of one session always take effect in order"),
    ("websocket.read_buffer_size", "0", "an idle session has no buffer"),
    ("websocket.write_buffer_size", "0", "an idle session has no buffer"),
    ("websocket.use_write_buffer_pool", "false", "an idle session has no buffer"),
    (
        "websocket.write_timeout",
        "\"1s\"",
        "no write ever waits: a socket that takes nothing is bounded by client.queue_max_size and client.pong_timeout",
    ),
    ("uni_websocket.read_buffer_size", "0", "an idle session has no buffer"),
    ("uni_websocket.write_buffer_size", "0", "an idle session has no buffer"),
    ("uni_websocket.use_write_buffer_pool", "false", "an idle session has no buffer"),
    ("engine.redis.force_resp2", "false", "Tidegate chooses the version of the Redis protocol itself"),
    ("engine.redis.history_use_lists", "false", "lists are no choice for history"),
    ("node.info_metrics_aggregate_interval", "\"60s\"", "the metrics page is always up to date"),
    ("prometheus.instrument_http_handlers", "false", "the metrics page holds all metrics that there are"),
    ("usage_stats.disabled", "false", "no statistics are sent to anybody"),
    ("pid_file", "\"\"", "the service manager knows the process"),
    ("enable_unreleased_features", "false", "there are none"),
];
